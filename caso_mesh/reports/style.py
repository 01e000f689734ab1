"""How pages of reports look. The palette is that of Okabe and Ito, which colour-blind people tell apart
(https://jfly.uni-koeln.de/color/), with darker shades for text."""

STYLE = """
:root{color-scheme:light dark;
--bg:light-dark(#fbfbfa,#15171a);--fg:light-dark(#1b1e22,#e6e7e9);--dim:light-dark(#5c636b,#9aa2ab);
--card:light-dark(#fff,#1d2024);--line:light-dark(#e2e4e7,#31353b);
--good:light-dark(#00704f,#3ecf9f);--warning:light-dark(#8a5a00,#f0b429);--bad:light-dark(#b03a00,#ff8a4c);
--goodbg:light-dark(#e3f4ee,#12302a);--warningbg:light-dark(#fdf1da,#35290f);--badbg:light-dark(#fde8dd,#3d2013);
--s1:light-dark(#0072b2,#4aa8e0);--s2:light-dark(#56b4e9,#8fd0f5);--s3:light-dark(#cc79a7,#e09cc3);
--s4:light-dark(#a89c00,#f0e442);--s5:light-dark(#6b5b95,#a897d6);--s6:light-dark(#7a7f85,#a3a9b0)}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.5rem 1.5rem 3rem;max-width:118rem;background:var(--bg);color:var(--fg);
overflow-wrap:anywhere;font:15px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
h1{font-size:1.45rem;margin:0;letter-spacing:-.01em}
h2{font-size:1rem;margin:1.9rem 0 .5rem}
header p{margin:.2rem 0 0;color:var(--dim)}
header b{color:var(--fg);font-weight:600}
.verdict{display:flex;gap:.7rem;align-items:center;margin:1.1rem 0 0;padding:.85rem 1.1rem;border-radius:.6rem;
font-size:1.15rem;font-weight:600;background:var(--card);border:1px solid var(--line)}
.sign{font-weight:700;display:inline-block;min-width:1em;text-align:center}
.t-good .sign,.state.t-good{color:var(--good)}
.t-warning .sign,.state.t-warning{color:var(--warning)}
.t-bad .sign,.state.t-bad{color:var(--bad)}
.verdict.t-good{background:var(--goodbg);border-color:transparent;color:var(--good)}
.verdict.t-bad{background:var(--badbg);border-color:transparent;color:var(--bad)}
.needs{list-style:none;margin:0;padding:0;background:var(--card);border:1px solid var(--line);border-radius:.6rem}
.needs li{display:flex;gap:.6rem;padding:.55rem 1rem;border-top:1px solid var(--line)}
.needs li:first-child{border-top:0}
.needs li>span:last-child{overflow-wrap:anywhere}
code{font:12.5px/1.4 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;color:var(--dim)}
.needs code{display:block}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.7rem;margin:1.3rem 0 0}
.figures div{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:.65rem .9rem}
.figures dt{color:var(--dim);font-size:.8rem}
.figures dd{margin:.1rem 0 0;font-size:1.45rem;font-weight:600;font-variant-numeric:tabular-nums}
.figures .t-good dd{color:var(--good)}.figures .t-warning dd{color:var(--warning)}.figures .t-bad dd{color:var(--bad)}
.legend span,figure,.figures div{min-width:0}.charts{display:flex;flex-wrap:wrap;gap:.9rem;margin:1.3rem 0 0}
figure{margin:0;flex:1 1 27rem;max-width:46rem;padding:.9rem 1rem;background:var(--card);border:1px solid var(--line);border-radius:.6rem}
figcaption{font-weight:600;margin-bottom:.5rem}
.chart{display:block;width:100%;height:auto;max-height:34rem;font-size:11.5px}
.chart text{fill:var(--dim);font-variant-numeric:tabular-nums}
.chart .label{fill:var(--fg)}.chart .right{text-anchor:end}.chart .middle{text-anchor:middle}
.grid{stroke:var(--line);stroke-width:1}
.s-good{fill:#009e73}.s-warning{fill:#e69f00}.s-bad{fill:#d55e00}.s-worse{fill:#7d3c98}
.s-c1{fill:var(--s1)}.s-c2{fill:var(--s2)}.s-c3{fill:var(--s3)}.s-c4{fill:var(--s4)}.s-c5{fill:var(--s5)}.s-c6{fill:var(--s6)}
.mark{stroke:#fff;stroke-opacity:.75;stroke-width:1.3;fill:none}.dot{fill:#fff;fill-opacity:.7}
.legend{display:flex;flex-wrap:wrap;gap:.3rem 1.1rem;margin:.5rem 0 0;font-size:.82rem;color:var(--dim)}
.legend svg{vertical-align:-2px}
details{margin-top:.5rem;font-size:.85rem}summary{cursor:pointer;color:var(--dim)}
details table{margin-top:.4rem;width:auto}details th{min-width:4rem;overflow-wrap:anywhere}
.scroll{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:.6rem}
details .scroll{border:0}
table{border-collapse:collapse;width:100%;font-size:.86rem}
th,td{padding:.42rem .6rem;text-align:left;vertical-align:top;border-top:1px solid var(--line);overflow-wrap:normal}
thead th{border-top:0;color:var(--dim);font-weight:500;font-size:.78rem}
tbody th{font-weight:400}
.n{text-align:right;font-variant-numeric:tabular-nums}td.n,.d{white-space:nowrap}.i{font-variant-numeric:tabular-nums}
.w,.l{min-width:clamp(4.5rem,5.5vw,8rem);overflow-wrap:anywhere}.w{width:30%}
.nothing{color:var(--dim);opacity:.6}
.state{display:inline-flex}.state .sign{margin-right:.35em}
.empty{color:var(--dim);margin:.2rem 0}
footer{margin-top:2rem;padding-top:.8rem;border-top:1px solid var(--line);color:var(--dim);font-size:.82rem}
footer p{margin:.15rem 0}
@media screen and (max-width:1250px){body{padding:1rem .9rem 2rem}table{font-size:.8rem}th,td{padding:.35rem .3rem}thead th{font-size:.74rem}}
@media print{:root{color-scheme:light}body{max-width:none;padding:0;font-size:11px}details{display:none}
.scroll{overflow:visible}th,td,td.n{white-space:normal;padding:.2rem .4rem}tr,figure,.needs li{break-inside:avoid}
h2{break-after:avoid}thead{display:table-header-group}.verdict,.s-good,.s-bad,.s-warning{print-color-adjust:exact}}
"""
