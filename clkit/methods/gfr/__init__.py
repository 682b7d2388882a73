"""GFR: generators, critics and statistics of features, and the learner."""
