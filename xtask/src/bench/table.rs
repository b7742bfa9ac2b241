//! The results of a comparison as tables of text.

use comfy_table::{CellAlignment, Table, presets};

use super::cell::Outcome;
use super::compare::Row;
use super::statistics::Spread;
use super::targets::Judged;

/// One line for each row, with medians and spreads over the rounds.
pub(super) fn rows(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([
        "row",
        "calls/s [low high]",
        "of floor",
        "p50 µs",
        "p99 µs",
        "CPU µs: caller",
        "worker",
        "both [low high]",
        "broker",
        "allocations",
    ]);
    for row in rows {
        let Some(rate) = row.spread(|outcome| outcome.calls_per_second) else {
            continue;
        };
        let median = |figure: &dyn Fn(&Outcome) -> Option<f64>| {
            let rounds = row.rounds.iter().flatten().filter_map(figure);
            Spread::of(rounds).map_or(String::new(), |spread| number(spread.median))
        };
        let both = row.spread(|outcome| outcome.cpu_us.both());
        let floor = rows.iter().find(|other| {
            let (cell, of) = (&other.cell, &row.cell);
            cell.what == "floor" && cell.confirms == of.confirms && cell.in_flight == of.in_flight
        });
        let of_floor = floor.and_then(|floor| row.against(floor));
        table.add_row([
            row.cell.to_string(),
            spread(rate),
            of_floor.map_or(String::new(), |ratio| format!("{:.2}", ratio.median)),
            median(&|outcome| Some(outcome.latency_us.p50)),
            median(&|outcome| Some(outcome.latency_us.p99)),
            median(&|outcome| Some(outcome.cpu_us.caller)),
            median(&|outcome| outcome.cpu_us.worker),
            both.map_or(String::new(), spread),
            median(&|outcome| outcome.cpu_us.broker),
            row.allocations
                .map_or(String::new(), |each| number(each.both())),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// One line for each target.
pub(super) fn targets(judged: &[Judged]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["target", "row", "against", "wanted", "is [low high]", ""]);
    for target in judged {
        let Spread { median, low, high } = target.is;
        table.add_row([
            target.name.to_owned(),
            target.of.clone(),
            target.to.clone(),
            target.wanted.clone(),
            format!("{median:.2} [{low:.2} {high:.2}]"),
            if target.met { "met" } else { "MISSED" }.to_owned(),
        ]);
    }
    table
}

fn spread(Spread { median, low, high }: Spread) -> String {
    format!("{} [{} {}]", number(median), number(low), number(high))
}

/// Three digits or more, with thousands apart.
pub(super) fn number(value: f64) -> String {
    let digits = match value {
        small if small < 10.0 => return format!("{small:.2}"),
        medium if medium < 100.0 => return format!("{medium:.1}"),
        large => format!("{large:.0}"),
    };
    let mut apart = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            apart.push(' ');
        }
        apart.push(digit);
    }
    apart
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_at_least() {
        let numbers = [0.123, 12.345, 123.4, 12_345.6, 1_234_567.0].map(number);
        assert_eq!(numbers, ["0.12", "12.3", "123", "12 346", "1 234 567"]);
    }
}
