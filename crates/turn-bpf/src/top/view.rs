//! The screen. Made for 80 columns and 24 lines, and of use in others.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line as Text, Span};
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row, Sparkline, Table};

use super::state::{Line, State};
use crate::control::document::{self, StatusDocument};
use crate::control::table::Colours;

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, state: &State) {
    let Some(status) = &state.status else { return };
    let reasons = state.reasons.len().clamp(1, MOST_REASONS) as u16;
    let [head, share, graph, why, sessions, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(3),
        Constraint::Length(reasons),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(headline(state, status), head);
    frame.render_widget(shares(state, status), share);
    frame.render_widget(sparkline(state), graph);
    frame.render_widget(Paragraph::new(reason_lines(state)), why);
    draw_sessions(frame, state, sessions);
    frame.render_widget(footer(state), foot);
    if state.shows_help {
        draw_help(frame);
    }
}

fn headline<'a>(state: &'a State, status: &'a StatusDocument) -> Text<'a> {
    if let Some(why) = &state.lost {
        return Text::styled(why.as_str(), paint(state, Color::Red));
    }
    let interfaces: Vec<_> =
        status.interfaces.iter().map(|one| format!("{} {}", one.name, one.mode)).collect();
    let mut spans = vec![
        Span::styled("turn-bpf ", Style::new().add_modifier(Modifier::BOLD)),
        Span::raw(format!("{}  {}", status.version, interfaces.join(", "))),
    ];
    if !status.paused.is_empty() {
        spans.push(Span::styled(
            format!("  {} paused by operators", status.paused.len()),
            paint(state, Color::Yellow),
        ));
    }
    if state.is_frozen() {
        spans.push(Span::styled("  FROZEN", paint(state, Color::Yellow).add_modifier(Modifier::BOLD)));
    }
    Text::from(spans)
}

fn shares<'a>(state: &State, status: &StatusDocument) -> Text<'a> {
    let part = |share: Option<f64>| share.map_or("-".to_owned(), percent);
    let now = state.shares.front().copied().flatten();
    let counts = &status.sessions;
    let all = counts.kernel + counts.mixed + counts.userspace;
    let colour = match now {
        Some(0.9..) => Color::Green,
        Some(0.5..) => Color::Yellow,
        Some(_) => Color::Red,
        None => Color::Reset,
    };
    Text::from(vec![
        Span::raw("in the kernel: now "),
        Span::styled(part(now), paint(state, colour).add_modifier(Modifier::BOLD)),
        Span::raw(format!(
            " of {}/s, since start {}; sessions {} of {all}",
            short(state.kernel_rate + state.reasons.iter().map(|(_, rate)| rate).sum::<f64>()),
            part(status.packets.kernel_share()),
            counts.kernel,
        )),
    ])
}

fn sparkline(state: &State) -> Sparkline<'static> {
    // A bar of no height where there was traffic and none in the kernel, and none at all where there was no traffic.
    let data: Vec<Option<u64>> =
        state.shares.iter().map(|share| share.map(|share| (share * 1000.0).round() as u64)).collect();
    Sparkline::default()
        .data(data)
        .max(1000)
        .absent_value_symbol("·")
        .style(paint(state, Color::Green))
        .direction(ratatui::widgets::RenderDirection::RightToLeft)
}

fn reason_lines<'a>(state: &State) -> Vec<Text<'a>> {
    if state.reasons.is_empty() {
        return vec![Text::raw("to the server: nothing just now")];
    }
    let lines = state.reasons.iter().take(MOST_REASONS);
    lines
        .map(|(reason, rate)| {
            Text::from(vec![
                Span::raw("to the server: "),
                Span::styled(format!("{}/s {}", short(*rate), reason.label()), paint(state, Color::Yellow)),
                Span::raw(format!(" {}", reason.explanation())),
            ])
        })
        .collect()
}

fn draw_sessions(frame: &mut Frame<'_>, state: &State, area: Rect) {
    let lines = state.lines();
    let header = Row::new(["CLIENT", "PEER", "CH", "PKT/S", "BYTE/S", "STATE"])
        .style(Style::new().add_modifier(Modifier::REVERSED));
    // Narrow enough for 80 columns; what is left is for the addresses.
    let widths = [
        Constraint::Fill(1),
        Constraint::Fill(1),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(15),
    ];
    let room = usize::from(area.height.saturating_sub(1));
    let rows = lines.iter().skip(state.scrolled).take(room).map(|line| session_row(state, line));
    frame.render_widget(Table::new(rows, widths).header(header), area);
    if lines.is_empty() && area.height > 2 {
        let text =
            if state.session_count() == 0 { "no channel bindings" } else { "no session fits the filter" };
        frame.render_widget(Paragraph::new(text), Rect { y: area.y + 1, height: 1, ..area });
    }
}

fn session_row<'a>(state: &State, line: &Line) -> Row<'a> {
    let row = &line.row;
    let (colour, text) = match (&row.state, &row.reason) {
        (document::State::Kernel, _) => (Color::Green, "kernel".to_owned()),
        (document::State::Mixed, reason) => {
            (Color::Yellow, format!("½ {}", reason.as_deref().unwrap_or("-")))
        }
        (document::State::Userspace, reason) => (Color::Red, reason.as_deref().unwrap_or("-").to_owned()),
    };
    let right = |text: String| Cell::new(Text::raw(text).right_aligned());
    Row::new([
        Cell::new(row.client.to_string()),
        Cell::new(row.peer.to_string()),
        Cell::new(row.channel.to_string()),
        right(short(line.packets_per_second)),
        right(short(line.bytes_per_second)),
        Cell::new(text).style(paint(state, colour)),
    ])
}

fn footer<'a>(state: &State) -> Text<'a> {
    if state.is_typing {
        return Text::from(format!("filter: {}_   Enter to keep, Esc to clear", state.filter));
    }
    let filter = if state.filter.is_empty() { String::new() } else { format!("={}", state.filter) };
    let direction = if state.is_reversed { ", reversed" } else { "" };
    let keys = format!(
        "q quit  s sort ({}{direction})  r reverse  / filter{filter}  p freeze  ? help",
        state.sort.name()
    );
    Text::styled(keys, Style::new().add_modifier(Modifier::REVERSED))
}

fn draw_help(frame: &mut Frame<'_>) {
    let text = [
        "q, Esc      quit",
        "s           sort by rate, packets per second, total, age, client",
        "r           the other way round",
        "/           filter: an address, a network, an address with a port,",
        "            or a part of a name, state or reason",
        "p, Space    freeze the screen, and go on",
        "arrows      scroll; also j, k, Page Up, Page Down, Home",
        "",
        "The graph is the kernel's share of the packets of known flows,",
        "the latest on the right; a dot is a time without any.",
        "½: relayed in the kernel one way only.",
        "",
        "any key closes this",
    ];
    let area = frame.area();
    let height = (text.len() as u16 + 2).min(area.height);
    let width = 70.min(area.width);
    let place =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    frame.render_widget(Clear, place);
    let lines: Vec<Text<'_>> = text.into_iter().map(Text::from).collect();
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" keys ")), place);
}

fn paint(state: &State, colour: Color) -> Style {
    match state.colours {
        Colours::Yes => Style::new().fg(colour),
        Colours::No => Style::new(),
    }
}

/// Never rounded up to 100.
fn percent(share: f64) -> String {
    format!("{:.1} %", (share * 1000.0).floor() / 10.0)
}

/// At most five characters: `0`, `999`, `1.2k`, `12.3M`.
fn short(number: f64) -> String {
    let units = [("", 1.0), ("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12)];
    // What rounds to a thousand is written in the next unit.
    let (unit, factor) =
        units.into_iter().rev().find(|(_, factor)| number >= factor * 0.9995).unwrap_or(units[0]);
    let scaled = number / factor;
    match unit {
        "" => format!("{scaled:.0}"),
        _ if scaled < 99.95 => format!("{scaled:.1}{unit}"),
        _ => format!("{scaled:.0}{unit}"),
    }
}

const MOST_REASONS: usize = 3;

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::KeyCode;

    use super::super::state::tests::{key, two_moments};
    use super::*;

    fn screen(state: &State, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, state)).unwrap();
        let buffer = terminal.backend().buffer();
        let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..height).map(row).collect()
    }

    #[test]
    fn a_screen_of_80_columns() {
        let screen = screen(&two_moments(), 80, 24);
        assert_eq!(screen[0], "turn-bpf 0.1.0  eth0 native, eth1 tc  1 paused by operators");
        assert_eq!(screen[1], "in the kernel: now 99.0 % of 1.0k/s, since start 99.4 %; sessions 4 of 5");
        assert!(screen[4].ends_with('█'), "{:?}", screen[4]);
        assert!(screen[5].starts_with("to the server: 10/s heartbeat The one packet per heartbeat"));
        let expected = [
            "CLIENT                PEER                  CH     PKT/S  BYTE/S STATE",
            "[2001:db8::2]:40000   198.18.2.2:5001       0x4fff     10   2.0M ambiguous",
            "198.18.1.2:40000      198.18.2.2:5000       0x4000    990   198k kernel",
        ];
        assert_eq!(screen[6..9], expected);
        assert_eq!(screen[23], "q quit  s sort (rate)  r reverse  / filter  p freeze  ? help");
    }

    #[test]
    fn help_and_filter_are_seen() {
        let mut state = two_moments();
        state.press(key(KeyCode::Char('?')));
        assert!(screen(&state, 80, 24).iter().any(|line| line.contains("s           sort by rate")));
        state.press(key(KeyCode::Enter));
        for character in "/nobody".chars() {
            state.press(key(KeyCode::Char(character)));
        }
        let shown = screen(&state, 80, 24);
        assert_eq!(shown[7], "no session fits the filter");
        assert_eq!(shown[23], "filter: nobody_   Enter to keep, Esc to clear");
    }

    #[test]
    fn no_size_is_too_small() {
        let mut state = two_moments();
        state.press(key(KeyCode::Char('?')));
        for (width, height) in [(1, 1), (10, 5), (80, 9), (300, 100)] {
            screen(&state, width, height);
        }
    }

    #[test]
    fn without_colours_there_are_none() {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| draw(frame, &two_moments())).unwrap();
        assert!(terminal.backend().buffer().content.iter().all(|cell| cell.fg == Color::Reset));
    }

    #[test]
    fn short_numbers() {
        let rows = [
            (0.0, "0"),
            (999.4, "999"),
            (999.6, "1.0k"),
            (12_340.0, "12.3k"),
            (99_960.0, "100k"),
            (999_600.0, "1.0M"),
            (1.25e9, "1.2G"),
        ];
        for (number, text) in rows {
            assert_eq!(short(number), text, "{number}");
        }
    }
}
