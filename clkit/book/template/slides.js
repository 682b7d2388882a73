const all = [...document.querySelectorAll(".slide")];
const here = () => all.reduce((best, one, n) =>
  Math.abs(one.getBoundingClientRect().top) < Math.abs(all[best].getBoundingClientRect().top) ? n : best, 0);
const steps = { ArrowRight: 1, PageDown: 1, ArrowLeft: -1, PageUp: -1, Home: -all.length, End: all.length };
addEventListener("keydown", (event) => {
  const step = steps[event.key];
  if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  const next = all[Math.min(all.length - 1, Math.max(0, here() + step))];
  next.scrollIntoView();
  next.focus({ preventScroll: true });
});
