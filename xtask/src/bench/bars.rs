//! A picture of a part: bars, case by case, with the spread of their rounds.

use turn_testkit::measurement::{Figure, Part};

const WIDTH: f64 = 960.0;
const LABELS: f64 = 370.0;
const NUMBERS: f64 = 110.0;
const BAR: f64 = 13.0;
const GAP: f64 = 9.0;
const HEAD: f64 = 24.0;
const LEGEND_LINE: f64 = 16.0;
const COLOURS: [&str; 8] =
    ["#0b6e99", "#d9730d", "#448361", "#9065b0", "#c14c8a", "#787774", "#cb912f", "#d44c47"];

/// Draws all figures, those of each unit to a scale of their own.
pub fn draw(part: &Part) -> String {
    let mut body = String::new();
    let mut top = 10.0;
    let mut units: Vec<&str> = Vec::new();
    for figure in &part.figures {
        if !units.contains(&figure.unit.as_str()) {
            units.push(&figure.unit);
        }
    }
    for unit in units {
        let figures: Vec<&Figure> = part.figures.iter().filter(|figure| figure.unit == unit).collect();
        top = draw_unit(&mut body, unit, &figures, top);
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{top:.0}\" viewBox=\"0 0 {WIDTH} {top:.0}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{body}</svg>\n"
    )
}

/// Draws the figures of one unit below `top`, and returns where they end.
fn draw_unit(body: &mut String, unit: &str, figures: &[&Figure], mut top: f64) -> f64 {
    let highest = figures.iter().filter_map(|figure| figure.summary()).map(|summary| summary.highest);
    let highest = highest.fold(f64::MIN_POSITIVE, f64::max);
    let scale = (WIDTH - LABELS - NUMBERS) / highest;
    let mut subjects: Vec<&str> = Vec::new();
    let mut cases: Vec<&str> = Vec::new();
    for figure in figures {
        for (known, name) in [(&mut subjects, &figure.subject), (&mut cases, &figure.case)] {
            if !known.contains(&name.as_str()) {
                known.push(name);
            }
        }
    }
    text(body, 10.0, top + 12.0, "bold", unit);
    let mut left = LABELS;
    for (subject, colour) in subjects.iter().zip(COLOURS.iter().cycle()) {
        let width = 30.0 + 6.2 * subject.len() as f64;
        if left + width > WIDTH && left > LABELS {
            (left, top) = (LABELS, top + LEGEND_LINE);
        }
        rectangle(body, left, top + 3.0, 10.0, 10.0, colour);
        text(body, left + 14.0, top + 12.0, "normal", subject);
        left += width;
    }
    top += HEAD;
    for case in cases {
        text(body, 10.0, top + BAR - 2.0, "normal", case);
        for (subject, colour) in subjects.iter().zip(COLOURS.iter().cycle()) {
            let found = figures.iter().find(|figure| figure.case == case && figure.subject == *subject);
            let Some(summary) = found.and_then(|figure| figure.summary()) else { continue };
            let at = |value: f64| LABELS + value.max(0.0) * scale;
            rectangle(body, LABELS, top, at(summary.median) - LABELS, BAR - 2.0, colour);
            let middle = top + BAR / 2.0 - 1.0;
            *body += &format!(
                "<line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\" stroke=\"#000000\"/>\n",
                at(summary.lowest),
                at(summary.highest)
            );
            text(
                body,
                at(summary.highest) + 5.0,
                top + BAR - 3.0,
                "normal",
                &super::document::number(summary.median),
            );
            top += BAR;
        }
        top += GAP;
    }
    top + GAP
}

fn rectangle(body: &mut String, left: f64, top: f64, width: f64, height: f64, colour: &str) {
    *body += &format!(
        "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>\n"
    );
}

fn text(body: &mut String, left: f64, base: f64, weight: &str, text: &str) {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;");
    *body += &format!("<text x=\"{left:.1}\" y=\"{base:.1}\" font-weight=\"{weight}\">{escaped}</text>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_median_is_to_the_highest() {
        let figure = |subject: &str, rounds: &[f64]| Figure {
            case: "a < b".into(),
            subject: subject.into(),
            unit: "ns".into(),
            rounds: rounds.to_vec(),
        };
        let part = Part {
            schema: 1,
            part: "p".into(),
            machine: "m".into(),
            processors_busy_before: 0.0,
            seconds: 1.0,
            figures: vec![figure("one", &[10.0, 20.0, 40.0]), figure("two", &[40.0])],
            budgets: Vec::new(),
        };
        let svg = draw(&part);
        let room = WIDTH - LABELS - NUMBERS;
        assert!(
            svg.contains(&format!("width=\"{:.1}\" height=\"11.0\" fill=\"{}\"", room / 2.0, COLOURS[0])),
            "{svg}"
        );
        assert!(
            svg.contains(&format!("width=\"{room:.1}\" height=\"11.0\" fill=\"{}\"", COLOURS[1])),
            "{svg}"
        );
        assert!(svg.contains("a &lt; b"));
    }
}
