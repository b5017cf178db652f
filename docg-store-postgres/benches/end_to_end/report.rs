//! The figures as a table and a picture.

use std::{fmt::Write, fs, path::Path};

/// One line of the table.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) steps_per_second: f64,
    /// How many steps a second floor (a) had in the same round, with 16 clients.
    pub(crate) of_floor: f64,
    pub(crate) details: Option<Details>,
}

/// What an execution cost.
pub(crate) struct Details {
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    pub(crate) statements: f64,
    pub(crate) transactions: f64,
    pub(crate) wal_kb: f64,
    pub(crate) wal_records: f64,
    pub(crate) server_cpu_ms: f64,
    pub(crate) own_cpu_ms: f64,
}

const BEGIN: &str = "<!-- figures: begin -->";
const END: &str = "<!-- figures: end -->";

pub(crate) fn table(lines: &[Line], where_measured: &str) -> String {
    let mut text = format!(
        "{where_measured}\n\n\
        | work | steps/s | of floor (a) | p50 / p99 | writing transactions (statements) | WAL | CPU of Postgres | CPU of docg |\n\
        |---|---|---|---|---|---|---|---|\n"
    );
    for line in lines {
        let _ = write!(
            text,
            "| {} | {:.0} | {:.2} |",
            line.name, line.steps_per_second, line.of_floor
        );
        let Some(it) = &line.details else {
            text.push_str(" | | | | |\n");
            continue;
        };
        let latency = it.p50_ms.zip(it.p99_ms);
        let latency =
            latency.map_or_else(String::new, |(p50, p99)| format!("{p50:.1} / {p99:.1} ms"));
        let _ = writeln!(
            text,
            " {latency} | {:.1} ({:.1}) | {:.1} kB, {:.0} records | {:.2} ms | {:.2} ms |",
            it.transactions,
            it.statements,
            it.wal_kb,
            it.wal_records,
            it.server_cpu_ms,
            it.own_cpu_ms
        );
    }
    text
}

/// A bar for the speed of each line.
pub(crate) fn picture(lines: &[Line]) -> String {
    let most = lines
        .iter()
        .map(|it| it.steps_per_second)
        .fold(1.0, f64::max);
    let height = 28 * lines.len() + 12;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 760 {height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<title>Durable steps per second</title>\n"
    );
    for (line, top) in lines.iter().zip((8..).step_by(28)) {
        let width = (line.steps_per_second / most * 330.0).max(1.0);
        let color = if line.details.is_some() {
            "#2563eb"
        } else {
            "#9ca3af"
        };
        let _ = writeln!(
            svg,
            "<text x=\"330\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <rect x=\"340\" y=\"{top}\" width=\"{width:.0}\" height=\"20\" fill=\"{color}\"/>\
             <text x=\"{:.0}\" y=\"{}\">{:.0}</text>",
            top + 15,
            line.name,
            345.0 + width,
            top + 15,
            line.steps_per_second
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// Replaces the figures in `docs/performance.md`, and the picture beside it.
pub(crate) fn store(docs: &Path, table: &str, picture: &str) {
    let page = docs.join("performance.md");
    let text = fs::read_to_string(&page).expect("there is a page");
    let (before, rest) = text
        .split_once(BEGIN)
        .expect("the page has a place for figures");
    let (_, after) = rest.split_once(END).expect("the figures have an end");
    fs::write(&page, format!("{before}{BEGIN}\n{table}{END}{after}"))
        .expect("the page is writable");
    fs::write(docs.join("performance.svg"), picture).expect("the folder is writable");
}
