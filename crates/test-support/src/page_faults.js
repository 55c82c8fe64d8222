// Finds faults in the layout and the colours of a page. This is the body of a function; it returns a promise of a
// list of sentences, which resolves once the page has been laid out.
const faults = [];
const isShown = element => element.checkVisibility() && !element.closest('[aria-hidden="true"] defs');
const name = element => `<${element.tagName.toLowerCase()}#${element.id}> ${element.textContent.trim().slice(0, 40)}`;

// The scrollable element around an element, if any: what is in it can be reached, and may be wider than the page.
const scroller = element => {
  while (element && !['auto', 'scroll'].includes(getComputedStyle(element).overflowX)) element = element.parentElement;
  return element;
};

// https://www.w3.org/TR/WCAG21/#dfn-relative-luminance
const channels = color => color.match(/[\d.]+/g).map(Number);
function luminance(color) {
  const [r, g, b] = channels(color).map(value => value / 255).map(value =>
    value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function contrast(one, other) {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}
function behind(element) {
  for (let at = element; at; at = at.parentElement) {
    const color = getComputedStyle(at).backgroundColor;
    if (channels(color)[3] !== 0) return color;
  }
  return 'rgb(255, 255, 255)';
}
function needs(ratio, element, color, background) {
  const is = contrast(color, background);
  if (is < ratio) faults.push(`${name(element)}: ${color} on ${background} is ${is.toFixed(2)}, not ${ratio}`);
}

function findFaults() {
  const range = document.createRange();
  if (document.documentElement.scrollWidth > innerWidth) faults.push('the page scrolls sideways');
  for (const element of document.body.querySelectorAll('*')) {
    if (!isShown(element) || element.closest('svg, thead, script')) continue;
    const style = getComputedStyle(element), { left, right, width } = element.getBoundingClientRect();
    const around = scroller(element);
    if (around === element) {
      if (!element.matches('[tabindex]') && !element.querySelector('[tabindex="0"]')) faults.push(`${name(element)} cannot be scrolled by keyboard`);
    } else if (!around && (left < -1 || right > document.documentElement.clientWidth + 1)) faults.push(`${name(element)} sticks out`);
    if (around !== element && element.scrollWidth > element.clientWidth + 1 && style.overflowX !== 'visible') faults.push(`${name(element)} is cut`);
    range.selectNodeContents(element);
    if (element.tagName === 'TD' && width < 100 && range.getClientRects().length > 3) faults.push(`${name(element)} is squeezed`);
    if (element.matches('button, select, [type=search]')) needs(3, element, style.borderTopColor, behind(element.parentElement));
    if (element.tagName === 'I') needs(3, element, element.className === 'fail' ? style.borderTopColor : style.backgroundColor, behind(element.parentElement));
  }
  const walk = document.createTreeWalker(document.querySelector('body'), NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const text = walk.currentNode, parent = text.parentElement;
    if (!text.data.trim() || !isShown(parent) || parent.closest('svg, thead, script, noscript')) continue;
    needs(4.5, parent, getComputedStyle(parent).color, behind(parent));
    range.selectNodeContents(text);
    if (scroller(parent)) continue;
    const card = (parent.closest('section') ?? document.body).getBoundingClientRect();
    for (const { left, right } of range.getClientRects())
      if (left < card.left || right > card.right) faults.push(`${name(parent)} runs out of its card`);
  }
  for (const plot of document.querySelectorAll('svg')) {
    const background = behind(plot);
    for (const path of plot.querySelectorAll('path:not(.grid)')) {
      const style = getComputedStyle(path);
      if (path.getAttribute('d')) needs(3, path, style.stroke === 'none' ? style.fill : style.stroke, background);
    }
    const labels = [...plot.querySelectorAll('text')];
    for (const label of labels) {
      needs(4.5, label, getComputedStyle(label).fill, background);
      const { x, width } = label.getBBox();
      if (x < -1 || x + width > plot.clientWidth + 1) faults.push(`${name(label)} is cut`);
      for (const other of labels) {
        const a = label.getBoundingClientRect(), b = other.getBoundingClientRect();
        const apart = a.right <= b.left || b.right <= a.left || a.bottom <= b.top || b.bottom <= a.top;
        if (label !== other && !apart) faults.push(`${name(label)} covers ${name(other)}`);
      }
    }
  }
  return faults;
}
return new Promise(resolve => requestAnimationFrame(() => requestAnimationFrame(() => resolve(findFaults()))));
