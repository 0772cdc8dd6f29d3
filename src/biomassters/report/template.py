"""The page's HTML, style and script; one file, no network.

Python's and not a file beside it, so that a change of it is a change of the stage's code.
"""

from typing import Final

STYLE: Final = """
:root { --ink: #1c2421; --soft: #51605a; --line: #d8dfdb; --wash: #f4f7f5; --green: #1f6b45; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: #fff;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
header, main, footer { max-width: 72rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2.5rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.3rem; margin: 2.75rem 0 .5rem; padding-top: .5rem;
  border-top: 1px solid var(--line); }
p, li { max-width: 46rem; }
.lead { font-size: 1.15rem; color: var(--soft); }
.figures { display: grid; gap: .75rem; margin: 1.5rem 0;
  grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); }
.figures div { background: var(--wash); border-radius: .5rem; padding: .9rem 1rem; }
.figures dt { color: var(--soft); font-size: .9rem; }
.figures dd { margin: 0; font-size: 1.5rem; font-weight: 600; }
.figures small { display: block; font-size: .85rem; font-weight: 400; color: var(--soft); }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; list-style: none; padding: 0;
  margin: 1.25rem 0 0; }
a { color: var(--green); }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .93rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding-bottom: .35rem; }
th, td { text-align: left; padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
thead th { color: var(--soft); font-weight: 600; }
figure { margin: 1.25rem 0; }
figcaption { color: var(--soft); font-size: .93rem; max-width: 46rem; }
figure img { max-width: 100%; height: auto; display: block; }
button.zoom { border: 0; padding: 0; background: none; cursor: zoom-in; display: block; width: 100%;
  text-align: left; }
button.zoom:focus-visible { outline: 3px solid var(--green); outline-offset: 3px; }
.pair { display: grid; gap: 1.25rem; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); }
details summary { cursor: pointer; color: var(--green); }
dialog { border: 0; padding: 0; max-width: 98vw; max-height: 96vh; overflow: auto; }
dialog::backdrop { background: rgba(0, 0, 0, .75); }
dialog img { display: block; image-rendering: pixelated; max-width: none; }
dialog button { position: sticky; top: .5rem; left: .5rem; z-index: 1; font: inherit;
  padding: .3rem .9rem; }
pre { background: var(--wash); padding: .9rem 1rem; border-radius: .5rem; overflow-x: auto;
  font-size: .9rem; }
footer { color: var(--soft); font-size: .9rem; padding: 2rem 1.25rem 3rem; }
@media print { nav, dialog { display: none; } }
"""

SCRIPT: Final = """
const dialog = document.querySelector("dialog");
const shown = document.createElement("img");
dialog.append(shown);
for (const button of document.querySelectorAll("button.zoom")) {
  button.addEventListener("click", () => {
    const image = button.querySelector("img");
    shown.src = image.src;
    shown.alt = image.alt;
    shown.style.width = Math.max(2 * image.naturalWidth, window.innerWidth) + "px";
    dialog.showModal();
  });
}
dialog.querySelector("button").addEventListener("click", () => dialog.close());
"""

PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<link rel="icon" href="data:,">
<style>{{ style | safe }}</style>
</head>
<body>
{% macro table(content) -%}
<div class="scroll" tabindex="0" role="region" aria-label="{{ content.caption }}">
<table><caption>{{ content.caption }}</caption>
<thead><tr>{% for cell in content.header %}
{% if cell %}<th scope="col">{{ cell }}</th>{% else %}<td></td>{% endif %}
{% endfor %}</tr></thead>
<tbody>{% for row in content.rows %}
<tr>{% for cell in row %}
{% if loop.first %}<th scope="row">{{ cell }}</th>{% else %}<td>{{ cell }}</td>{% endif %}
{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{%- endmacro %}
{% macro picture(content) -%}
<figure><button class="zoom" type="button" aria-label="Enlarge: {{ content.alt }}">
<img src="{{ content.source }}" alt="{{ content.alt }}"
 width="{{ content.width }}" height="{{ content.height }}"></button>
<figcaption>{{ content.caption }}</figcaption></figure>
{%- endmacro %}
<header>
<h1>{{ title }}</h1>
<p class="lead">{{ question }}</p>
{% if simulated %}<p><strong>These chips are simulated.</strong> The figures show that the pipeline
learns, not how well it maps real forests.</p>{% endif %}
{% if headline %}<dl class="figures">{% for name, value, note in headline %}
<div><dt>{{ name }}</dt><dd>{{ value }}<small>{{ note }}</small></dd></div>
{% endfor %}</dl>{% endif %}
<nav aria-label="Sections"><ul>{% for section in sections %}
<li><a href="#{{ section.anchor }}">{{ section.title }}</a></li>
{% endfor %}</ul></nav>
</header>
<main>
{% for section in sections %}
<section aria-labelledby="{{ section.anchor }}">
<h2 id="{{ section.anchor }}">{{ section.title }}</h2>
{% for text in section.texts %}<p>{{ text }}</p>
{% endfor %}
{% for content in section.tables %}{{ table(content) }}
{% endfor %}
{% if section.pictures | length > 1 and section.in_pairs %}<div class="pair">{% endif %}
{% for content in section.pictures %}{{ picture(content) }}
{% endfor %}
{% if section.pictures | length > 1 and section.in_pairs %}</div>{% endif %}
{% if section.points %}<ul>{% for point in section.points %}<li>{{ point }}</li>
{% endfor %}</ul>{% endif %}
{% if section.code %}<pre tabindex="0">{{ section.code }}</pre>{% endif %}
{% if section.folded %}<details><summary>{{ section.folded.caption }}, all of it</summary>
{{ table(section.folded) }}</details>{% endif %}
</section>
{% endfor %}
</main>
<dialog aria-label="Enlarged picture"><button type="button">Close</button></dialog>
<footer>Made by <code>dvc repro report</code> on {{ made }}. Everything on this page is in this
file: no network is needed to read it.</footer>
<script>{{ script | safe }}</script>
</body>
</html>
"""
