//! The results of a comparison as one HTML page, which needs no network and no script.

use std::fmt::Write;

use anyhow::Result;

use super::cell::{Cell, Outcome};
use super::compare::{Report, Row};
use super::environment::Environment;
use super::plots::{self, Curve};
use super::statistics::Spread;
use super::table::number;
use super::targets::Judged;

/// The page.
pub(super) fn page(report: &Report) -> Result<String> {
    let rows = &report.rows;
    let mut body = String::new();
    body += "<h1>RPC over a broker, measured</h1>";
    body += &environment(&report.environment);
    write!(
        body,
        "<p>Each row was measured {} times for {} s, in turns with all others: what is given is the \
         median, and in ratios the median of the ratios of the rounds. Caller, worker and broker are \
         processes of their own and share the machine. Rows in bold are ours.</p>",
        report.rounds, report.seconds
    )?;
    if !report.targets.is_empty() {
        body += "<h2>What we want, and what we have</h2>";
        body += &targets(&report.targets);
    }
    body += "<h2>Throughput against calls in flight</h2>\
        <p>Without confirms, so that everybody promises the same little. The floor is AMQP frames by \
        hand on a blocking socket.</p><div class=grid>";
    for (title, confirms) in [("Without confirms", false), ("With confirms", true)] {
        let throughput = curves(rows, confirms, |outcome| outcome.calls_per_second / 1e3);
        body += &card(
            title,
            &plots::against(IN_FLIGHT, &throughput, "thousand calls/s", false)?,
        );
    }
    body += "</div><h2>Latency</h2><p>With 64 calls in flight there is a line before the broker, \
        so this is mostly the inverse of the throughput; at half the load, with calls that come \
        whether or not others were answered, it is the time that a call takes.</p><div class=grid>";
    let is_steady = |cell: &Cell| cell.rate.is_some();
    let is_full = |cell: &Cell| cell.is_like(&Cell::new(cell.what, Some(false), 64));
    for (title, shown) in [
        (
            "64 calls in flight, without confirms",
            &is_full as &dyn Fn(&Cell) -> bool,
        ),
        ("At half the load, without confirms", &is_steady),
    ] {
        let quantiles = quantiles(rows, shown);
        if !quantiles.is_empty() {
            body += &card(title, &plots::quantiles(&quantiles, "ms")?);
        }
    }
    let latency = curves(rows, false, |outcome| outcome.latency_us.p99 / 1e3);
    body += &card(
        "p99 against calls in flight, without confirms",
        &plots::against(IN_FLIGHT, &latency, "ms", true)?,
    );
    body += "</div><h2>Processor time of a call</h2><p>64 calls in flight. The broker's part is \
        lower the more messages it gets in one piece.</p>";
    body += "<div class=key><span><i style='background:var(--caller)'></i>caller</span>\
        <span><i style='background:var(--worker)'></i>worker</span>\
        <span><i style='background:var(--broker)'></i>broker</span></div><div class=grid>";
    for (title, confirms) in [("Without confirms", false), ("With confirms", true)] {
        body += &card(title, &processor_time(rows, confirms));
    }
    body += "</div><h2>Sync beside async</h2><p>The same service and the same calls on both faces, \
        with confirms on a broker. The client library's own face is the one without an adapter: \
        async for lapin, blocking for amiquip, both for the in-process broker.</p><div class=grid>";
    body += &card("On RabbitMQ, thousand calls/s", &faces(rows, &ON_A_BROKER));
    body += &card(
        "In one process, thousand calls/s",
        &faces(rows, &IN_PROCESS),
    );
    body += "</div><h2>All figures</h2><div class='card scroll'>";
    body += &all(rows);
    body += "</div>";
    Ok(frame(&body))
}

/// The whole page around this.
pub(super) fn frame(body: &str) -> String {
    include_str!("page.html").replace("@BODY@", body)
}

/// Where and with what it was measured.
pub(super) fn environment(environment: &Environment) -> String {
    let mut text = String::new();
    for line in environment.describe().lines() {
        text += &format!("{}<br>", escape(line));
    }
    let busy = if environment.is_busy() {
        "<p class=busy>Others were at work on the machine: the numbers are worth little.</p>"
    } else {
        ""
    };
    format!("<p>{text}</p>{busy}")
}

fn targets(judged: &[Judged]) -> String {
    let cards = judged.iter().map(|target| {
        let Spread { median, low, high } = target.is;
        let against = match &*target.to {
            "" => String::new(),
            to => format!(" against {to}"),
        };
        format!(
            "<div class='target{}'>{}<b>{}</b><small>wanted {}; rounds {} to {}</small>\
             <small>{}{against}</small></div>",
            if target.met { " met" } else { "" },
            target.name,
            number(median),
            target.wanted,
            number(low),
            number(high),
            target.of,
        )
    });
    format!("<div class=targets>{}</div>", cards.collect::<String>())
}

/// A plot or the like with a title.
pub(super) fn card(title: &str, content: &str) -> String {
    format!("<div class=card><h3>{title}</h3>{content}</div>")
}

/// A figure of everybody over the numbers of calls in flight.
fn curves(rows: &[Row], confirms: bool, figure: impl Fn(&Outcome) -> f64) -> Vec<Curve> {
    let mut curves: Vec<Curve> = Vec::new();
    for row in rows {
        let Cell {
            what, in_flight, ..
        } = row.cell;
        if !row
            .cell
            .is_like(&Cell::new(what, Some(confirms), in_flight))
        {
            continue;
        }
        let Some(spread) = row.spread(&figure) else {
            continue;
        };
        let point = (in_flight as f64, spread.median);
        match curves.iter_mut().find(|curve| curve.name == what) {
            Some(curve) => curve.points.push(point),
            None => curves.push(Curve {
                name: what.to_owned(),
                points: vec![point],
            }),
        }
    }
    // A point alone is no curve.
    curves.retain(|curve| curve.points.len() > 1);
    for curve in &mut curves {
        curve.points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    curves
}

/// Latency by quantile, in milliseconds, of the rows to be shown.
fn quantiles(rows: &[Row], shown: &dyn Fn(&Cell) -> bool) -> Vec<Curve> {
    let of = |row: &Row| {
        let count = row
            .rounds
            .iter()
            .flatten()
            .next()?
            .latency_us
            .quantiles
            .len();
        let points = (0..count).filter_map(|at| {
            let (quantile, _) = row.rounds.iter().flatten().next()?.latency_us.quantiles[at];
            let median = row.spread(|outcome| {
                let quantiles = &outcome.latency_us.quantiles;
                quantiles.get(at).map_or(f64::NAN, |(_, latency)| *latency)
            })?;
            Some((quantile, median.median / 1e3))
        });
        Some(Curve {
            name: row.cell.what.to_owned(),
            points: points.collect(),
        })
    };
    let rows = rows.iter().filter(|row| shown(&row.cell));
    rows.filter_map(of).collect()
}

/// Stacked bars of the processor time of all three.
fn processor_time(rows: &[Row], confirms: bool) -> String {
    let of = |row: &Row| {
        let median = |figure: &dyn Fn(&Outcome) -> f64| Some(row.spread(figure)?.median);
        Some([
            median(&|outcome| outcome.cpu_us.caller)?,
            median(&|outcome| outcome.cpu_us.worker.unwrap_or(0.0))?,
            median(&|outcome| outcome.cpu_us.broker.unwrap_or(0.0))?,
        ])
    };
    let shown: Vec<_> = rows
        .iter()
        .filter(|row| {
            row.cell
                .is_like(&Cell::new(row.cell.what, Some(confirms), 64))
        })
        .filter_map(|row| Some((row.cell.what, of(row)?)))
        .collect();
    let longest = shown.iter().map(|(_, parts)| parts.iter().sum::<f64>());
    let longest = longest.fold(0.0, f64::max);
    let bars = shown.iter().map(|(what, parts)| {
        let colours = ["var(--caller)", "var(--worker)", "var(--broker)"];
        let parts: Vec<_> = parts.iter().copied().zip(colours).collect();
        let [caller, worker, _] = [0, 1, 2].map(|at| parts[at].0);
        bar(
            what,
            &parts,
            longest,
            &format!("{} µs + broker", number(caller + worker)),
        )
    });
    format!("<div class=bars>{}</div>", bars.collect::<String>())
}

/// Bars of throughput, for one call at a time and for many.
fn faces(rows: &[Row], shown: &[(&str, &str)]) -> String {
    let mut text = String::from("<div class=bars>");
    for in_flight in [1, 64] {
        let of = |what: &str| {
            let is_it = |row: &&Row| {
                let Cell { confirms, .. } = row.cell;
                row.cell.what == what
                    && confirms != Some(false)
                    && row.cell.rate.is_none()
                    && row.cell.in_flight == in_flight
            };
            let spread = rows
                .iter()
                .find(is_it)?
                .spread(|outcome| outcome.calls_per_second)?;
            Some(spread.median / 1e3)
        };
        let rates: Vec<_> = shown
            .iter()
            .filter_map(|(what, name)| Some((name, of(what)?)))
            .collect();
        let longest = rates.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
        if !rates.is_empty() {
            text += &format!("<div class=group>{in_flight} in flight</div>");
        }
        for (name, rate) in rates {
            let colour = if name.ends_with("async") {
                "var(--caller)"
            } else {
                "var(--worker)"
            };
            text += &bar(name, &[(rate, colour)], longest, &number(rate));
        }
    }
    text + "</div>"
}

fn bar(name: &str, parts: &[(f64, &str)], longest: f64, figure: &str) -> String {
    let class = if name.starts_with("ours") {
        " class=ours"
    } else {
        ""
    };
    let parts = parts.iter().map(|(value, colour)| {
        let width = 100.0 * value / longest;
        format!("<span style='width:{width:.2}%;background:{colour}'></span>")
    });
    let parts: String = parts.collect();
    format!("<span{class}>{name}</span><span class=bar>{parts}</span><span>{figure}</span>")
}

/// The table of everything.
pub(super) fn all(rows: &[Row]) -> String {
    let mut text = String::from(
        "<table><tr><th>row<th>calls/s<th>rounds<th>p50 µs<th>p99 µs<th>p99.9 µs\
         <th>caller µs<th>worker µs<th>broker µs<th>allocations</tr>",
    );
    for row in rows {
        let Some(rate) = row.spread(|outcome| outcome.calls_per_second) else {
            continue;
        };
        let median = |figure: &dyn Fn(&Outcome) -> Option<f64>| {
            let rounds = row.rounds.iter().flatten().filter_map(figure);
            Spread::of(rounds).map_or(String::new(), |spread| number(spread.median))
        };
        let class = if row.cell.what.starts_with("ours") {
            " class=ours"
        } else {
            ""
        };
        let cells = [
            number(rate.median),
            format!(
                "<small>{} to {}</small>",
                number(rate.low),
                number(rate.high)
            ),
            median(&|outcome| Some(outcome.latency_us.p50)),
            median(&|outcome| Some(outcome.latency_us.p99)),
            median(&|outcome| Some(outcome.latency_us.p999)),
            median(&|outcome| Some(outcome.cpu_us.caller)),
            median(&|outcome| outcome.cpu_us.worker),
            median(&|outcome| outcome.cpu_us.broker),
            row.allocations
                .map_or(String::new(), |each| number(each.both())),
        ];
        text += &format!("<tr><td{class}>{}", row.cell);
        for cell in cells {
            text += &format!("<td>{cell}");
        }
        text += "</tr>";
    }
    text + "</table>"
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

const IN_FLIGHT: &str = "calls in flight";

const ON_A_BROKER: [(&str, &str); 5] = [
    ("ours-lapin", "ours, lapin async"),
    ("ours-lapin-blocking", "ours, lapin blocking"),
    ("ours-amiquip-async", "ours, amiquip async"),
    ("ours-amiquip", "ours, amiquip blocking"),
    (
        "ours-amiquip-threads",
        "ours, amiquip blocking, a thread a call",
    ),
];

const IN_PROCESS: [(&str, &str); 4] = [
    ("ours-memory", "ours, async"),
    ("tarpc", "tarpc, async"),
    ("ours-memory-blocking", "ours, blocking"),
    ("mpsc", "two std channels, blocking"),
];
