"""The style sheet: light or dark by the reader's choice, light on paper; no colour says anything alone."""

from typing import Final

_LIGHT: Final = """
  --paper: #ffffff; --ink: #1a1d21; --soft: #5a6169; --rule: #d5d9de; --band: #f2f4f6; --still: #ffe3d6;
  --good: #1a7a3c; --bad: #b3261e; --open: #00629b;
  --wire: #0067a5; --cpu: #c14e00; --dma: #00745a; --remaining: #0067a5; --throttle: #8a3ca0;
  --part-1: #0067a5; --part-2: #c14e00; --part-3: #00745a; --part-4: #8a3ca0; --part-5: #8c6a00; --part-6: #4a5560;
  --inside: #ffffff;
"""
_DARK: Final = """
  --paper: #15181c; --ink: #e8eaed; --soft: #a4abb3; --rule: #3a4048; --band: #1e2329; --still: #4a2a1c;
  --good: #6fd08c; --bad: #ff8a80; --open: #6cb8f0;
  --wire: #5cb3f0; --cpu: #f0a04b; --dma: #4fd0ac; --remaining: #5cb3f0; --throttle: #d394e6;
  --part-1: #5cb3f0; --part-2: #f0a04b; --part-3: #4fd0ac; --part-4: #d394e6; --part-5: #e0c050; --part-6: #aab4be;
  --inside: #15181c;
"""
STYLE: Final = f"""
:root {{ color-scheme: light dark; {_LIGHT} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_DARK} }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }}
main {{ max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }}
h1 {{ font-size: 1.5rem; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.1rem; margin: 2rem 0 .4rem; break-after: avoid; }}
p {{ margin: .3rem 0; overflow-wrap: anywhere; }}
.soft, caption {{ color: var(--soft); }}
.outcome {{ font-weight: 700; }}
.completed {{ color: var(--good); }} .failed, .lost, .unresolved {{ color: var(--bad); }}
.open, .cancelled, .refused {{ color: var(--open); }}
.figures {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .5rem 1.5rem;
  margin: 1.2rem 0 0; padding: 0; }}
.figures div {{ border-top: 2px solid var(--rule); padding-top: .3rem; }}
.figures dt {{ color: var(--soft); font-size: .85rem; }}
.figures dd {{ margin: 0; font-size: 1.25rem; font-weight: 600; }}
.figures small {{ display: block; color: var(--soft); font-size: .8rem; font-weight: 400; }}
.notice {{ border-left: 4px solid var(--open); padding: .1rem .8rem; margin: 1rem 0 0; }}
.notice h2 {{ margin: .3rem 0 .1rem; }}
.notice.fault {{ border-color: var(--bad); }}
svg {{ display: block; width: 100%; min-width: 44rem; height: auto; font: 13px system-ui, sans-serif; }}
svg text {{ fill: var(--ink); }}
.mark, .number, .inside {{ text-anchor: middle; }}
svg text.mark, svg text.number {{ fill: var(--soft); }}
svg text.up, svg text.late {{ text-anchor: end; }}
svg text.inside {{ fill: var(--inside); font-weight: 700; }}
svg text.value {{ font-weight: 700; }}
svg text.beyond {{ fill: var(--soft); font-size: 16px; }}
svg text.limit-text {{ fill: var(--bad); }}
.grid {{ stroke: var(--rule); stroke-width: 1; }}
.tick {{ stroke: var(--soft); stroke-width: 1; }}
.band.odd {{ fill: var(--band); }} .band.even {{ fill: transparent; }} .band.still {{ fill: var(--still); }}
.line {{ fill: none; stroke-width: 2.25; stroke-linejoin: round; }}
.line.remaining {{ stroke: var(--remaining); }}
.line.wire {{ stroke: var(--wire); }}
.line.sent {{ stroke: var(--throttle); stroke-dasharray: 10 3 2 3; }}
.line.cpu {{ stroke: var(--cpu); stroke-dasharray: 7 4; }}
.line.dma {{ stroke: var(--dma); stroke-dasharray: 2 3; }}
.line.bound {{ stroke: var(--bad); stroke-width: 1.5; stroke-dasharray: 12 4; }}
.line.throttle {{ stroke: var(--throttle); }}
.area.remaining {{ fill: var(--remaining); opacity: .14; }}
.limit {{ stroke: var(--bad); stroke-width: 2; stroke-dasharray: 4 3; }}
.range {{ stroke: var(--soft); stroke-width: 3; }}
.expected {{ fill: var(--paper); stroke: var(--soft); stroke-width: 3; }}
.part {{ stroke: var(--paper); stroke-width: 1; }}
.part-1 {{ fill: var(--part-1); }} .part-2 {{ fill: var(--part-2); }} .part-3 {{ fill: var(--part-3); }}
.part-4 {{ fill: var(--part-4); }} .part-5 {{ fill: var(--part-5); }} .part-6 {{ fill: var(--part-6); }}
.swatch {{ display: inline-block; width: .8em; height: .8em; margin-right: .5em; background: currentColor; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }}
caption {{ text-align: left; font-size: .85rem; padding-bottom: .2rem; }}
th, td {{ padding: .15rem .6rem .15rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--rule); }}
td {{ overflow-wrap: anywhere; }}
thead th {{ color: var(--soft); font-weight: 500; }}
tbody th {{ font-weight: 500; white-space: nowrap; }}
.number-cell {{ text-align: right; white-space: nowrap; }}
footer {{ margin-top: 2.5rem; color: var(--soft); font-size: .85rem; }}
@media print {{ :root {{ color-scheme: light; {_LIGHT} }} svg {{ min-width: 0; }} svg, tr {{ break-inside: avoid; }}
  .scroll {{ overflow: visible; }} table {{ font-size: 7.5pt; }} th, td {{ padding-right: .5rem; }} }}
"""
