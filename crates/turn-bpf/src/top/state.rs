//! What is to be seen: rates from one moment to the next, what is sorted, filtered and frozen.

use std::cmp::Ordering;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use turn_datapath::Reason;

use crate::control::document::{SessionRow, SessionsDocument, StatusDocument};
use crate::control::selector::{AddressPattern, Selector};
use crate::control::table::Colours;

/// As many moments of the past as the widest terminal shows.
const REMEMBERED: usize = 512;

/// Everything that the screen shows.
pub(super) struct State {
    pub(super) colours: Colours,
    pub(super) status: Option<StatusDocument>,
    /// Which part of the packets of known flows the kernel relayed, from one moment to the next; none where there were none.
    pub(super) shares: VecDeque<Option<f64>>,
    /// Packets of known flows that went to the server lately, per second, by reason. The most frequent first.
    pub(super) reasons: Vec<(Reason, f64)>,
    /// Packets per second that the kernel relayed lately.
    pub(super) kernel_rate: f64,
    rows: Vec<Line>,
    moment: Option<Moment>,
    pub(super) sort: Sort,
    pub(super) is_reversed: bool,
    pub(super) filter: String,
    pub(super) is_typing: bool,
    is_frozen: bool,
    pub(super) shows_help: bool,
    /// How many rows are scrolled away.
    pub(super) scrolled: usize,
    /// Why the daemon tells nothing.
    pub(super) lost: Option<String>,
}

/// A session, and what it carried lately.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) row: SessionRow,
    pub(super) packets_per_second: f64,
    pub(super) bytes_per_second: f64,
}

/// What counters said at one time.
struct Moment {
    at: Instant,
    kernel: u64,
    spilled: HashMap<Reason, u64>,
    sessions: HashMap<(SocketAddr, SocketAddr, u16), (u64, u64)>,
}

/// What sessions are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    Rate,
    Packets,
    Total,
    Age,
    Client,
}

/// What a key asks of whoever reads the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    GoOn,
    Quit,
}

impl Sort {
    /// For people.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Packets => "packets per second",
            Self::Total => "total",
            Self::Age => "age",
            Self::Client => "client",
        }
    }

    const fn next(self) -> Self {
        match self {
            Self::Rate => Self::Packets,
            Self::Packets => Self::Total,
            Self::Total => Self::Age,
            Self::Age => Self::Client,
            Self::Client => Self::Rate,
        }
    }

    /// The first is to be seen first.
    fn compare(self, one: &Line, other: &Line) -> Ordering {
        let total = |line: &Line| line.row.client_to_peer.bytes() + line.row.peer_to_client.bytes();
        let by_name = || {
            let key = |line: &Line| (line.row.client, line.row.server, line.row.channel);
            key(one).cmp(&key(other))
        };
        let first = match self {
            Self::Rate => other.bytes_per_second.total_cmp(&one.bytes_per_second),
            Self::Packets => other.packets_per_second.total_cmp(&one.packets_per_second),
            Self::Total => total(other).cmp(&total(one)),
            Self::Age => other.row.age_seconds.cmp(&one.row.age_seconds),
            Self::Client => Ordering::Equal,
        };
        first.then_with(by_name)
    }
}

impl State {
    pub(super) fn new(colours: Colours) -> Self {
        Self {
            colours,
            status: None,
            shares: VecDeque::new(),
            reasons: Vec::new(),
            kernel_rate: 0.0,
            rows: Vec::new(),
            moment: None,
            sort: Sort::Rate,
            is_reversed: false,
            filter: String::new(),
            is_typing: false,
            is_frozen: false,
            shows_help: false,
            scrolled: 0,
            lost: None,
        }
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.is_frozen
    }

    /// The daemon told this.
    pub(super) fn take(&mut self, at: Instant, status: StatusDocument, sessions: SessionsDocument) {
        self.lost = None;
        let spilled = Reason::ALL.into_iter().filter(|reason| reason.is_spilled());
        let spilled: HashMap<_, _> = spilled
            .map(|reason| (reason, status.reasons.get(reason.label()).copied().unwrap_or_default()))
            .collect();
        let before = self.moment.take();
        let elapsed = before.as_ref().map(|before| at.saturating_duration_since(before.at));
        let per_second = |now: u64, before: u64| match elapsed {
            Some(elapsed) if elapsed > Duration::ZERO => {
                now.saturating_sub(before) as f64 / elapsed.as_secs_f64()
            }
            _ => 0.0,
        };
        if let Some(before) = &before {
            // A daemon that was started anew counts from zero.
            self.kernel_rate = per_second(status.packets.kernel, before.kernel);
            self.reasons = spilled
                .iter()
                .map(|(reason, now)| (*reason, per_second(*now, before.spilled[reason])))
                .filter(|(_, rate)| *rate > 0.0)
                .collect();
            self.reasons.sort_by(|one, other| other.1.total_cmp(&one.1).then(one.0.cmp(&other.0)));
            let all = self.kernel_rate + self.reasons.iter().map(|(_, rate)| rate).sum::<f64>();
            self.shares.push_front((all > 0.0).then_some(self.kernel_rate / all));
            self.shares.truncate(REMEMBERED);
        }
        let mut counts = HashMap::new();
        self.rows.clear();
        for row in sessions.sessions {
            let id = (row.client, row.server, row.channel.0);
            let packets = row.client_to_peer.packets() + row.peer_to_client.packets();
            let bytes = row.client_to_peer.bytes() + row.peer_to_client.bytes();
            counts.insert(id, (packets, bytes));
            // Of a session that has just come, all came lately.
            let known = before.as_ref().map(|before| before.sessions.get(&id).copied().unwrap_or_default());
            let (packets_before, bytes_before) = known.unwrap_or((packets, bytes));
            self.rows.push(Line {
                packets_per_second: per_second(packets, packets_before),
                bytes_per_second: per_second(bytes, bytes_before),
                row,
            });
        }
        self.moment = Some(Moment { at, kernel: status.packets.kernel, spilled, sessions: counts });
        self.status = Some(status);
        self.order();
    }

    /// The daemon told nothing, for this reason.
    pub(super) fn lose(&mut self, why: String) {
        self.lost = Some(why);
    }

    /// The sessions that are to be seen, in their order.
    pub(super) fn lines(&self) -> Vec<&Line> {
        self.rows.iter().filter(|line| self.is_wanted(line)).collect()
    }

    /// How many sessions there are in all.
    pub(super) fn session_count(&self) -> usize {
        self.rows.len()
    }

    /// A key was pressed.
    pub(super) fn press(&mut self, key: KeyEvent) -> Wish {
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Wish::Quit;
        }
        if self.is_typing {
            self.type_key(key.code);
            return Wish::GoOn;
        }
        if self.shows_help {
            self.shows_help = false;
            return Wish::GoOn;
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Wish::Quit,
            KeyCode::Char('s') => {
                self.sort = self.sort.next();
                self.order();
            }
            KeyCode::Char('r') => {
                self.is_reversed = !self.is_reversed;
                self.order();
            }
            KeyCode::Char('/' | 'f') => self.is_typing = true,
            KeyCode::Char('p' | ' ') => self.is_frozen = !self.is_frozen,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.shows_help = true,
            KeyCode::Down | KeyCode::Char('j') => self.scroll(1),
            KeyCode::Up | KeyCode::Char('k') => self.scroll(-1),
            KeyCode::PageDown => self.scroll(10),
            KeyCode::PageUp => self.scroll(-10),
            KeyCode::Home | KeyCode::Char('g') => self.scrolled = 0,
            _ => {}
        }
        Wish::GoOn
    }

    fn type_key(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(character) => self.filter.push(character),
            _ => {}
        }
        self.scrolled = 0;
    }

    fn scroll(&mut self, by: isize) {
        let last = self.lines().len().saturating_sub(1);
        self.scrolled = self.scrolled.saturating_add_signed(by).min(last);
    }

    fn order(&mut self) {
        let (sort, is_reversed) = (self.sort, self.is_reversed);
        self.rows.sort_by(|one, other| {
            let order = sort.compare(one, other);
            if is_reversed { order.reverse() } else { order }
        });
        self.scrolled = self.scrolled.min(self.rows.len().saturating_sub(1));
    }

    /// An address or a network, or else a part of what is shown of the session.
    fn is_wanted(&self, line: &Line) -> bool {
        if self.filter.is_empty() {
            return true;
        }
        if let Ok(pattern) = self.filter.parse::<AddressPattern>() {
            let selector = Selector { address: Some(pattern), ..Selector::default() };
            return selector.matches(&line.row.ends());
        }
        let SessionRow { client, relayed, peer, channel, state, reason, username, realm, .. } = &line.row;
        let shown = [client, relayed, peer].map(ToString::to_string);
        let others = [Some(channel.to_string()), Some(state.to_string()), reason.clone(), username.clone()];
        let texts = shown.into_iter().map(Some).chain(others).chain([realm.clone()]).flatten();
        texts.into_iter().any(|text| text.contains(&self.filter))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::control::document::tests::{sessions, status};

    pub(in crate::top) fn key(code: KeyCode) -> KeyEvent {
        KeyEvent::new(code, KeyModifiers::NONE)
    }

    pub(in crate::top) fn two_moments() -> State {
        let mut state = State::new(Colours::No);
        let start = Instant::now();
        state.take(start, status(), sessions());
        let (mut status, mut sessions) = (status(), sessions());
        status.packets.kernel += 1980;
        *status.reasons.entry("heartbeat".into()).or_default() += 20;
        sessions.sessions[0].client_to_peer.kernel_packets += 1980;
        sessions.sessions[0].client_to_peer.kernel_bytes += 396_000;
        sessions.sessions[1].client_to_peer.spilled_packets += 20;
        sessions.sessions[1].client_to_peer.spilled_bytes += 4_000_000;
        state.take(start + Duration::from_secs(2), status, sessions);
        state
    }

    fn clients(state: &State) -> Vec<String> {
        state.lines().iter().map(|line| line.row.client.to_string()).collect()
    }

    #[test]
    fn rates_are_from_one_moment_to_the_next() {
        let state = two_moments();
        assert_eq!((state.kernel_rate, state.shares[0]), (990.0, Some(0.99)));
        assert_eq!(state.reasons, [(Reason::Heartbeat, 10.0)]);
        let rates: Vec<_> =
            state.lines().iter().map(|line| (line.packets_per_second, line.bytes_per_second)).collect();
        assert_eq!(rates, [(10.0, 2_000_000.0), (990.0, 198_000.0)], "the fastest first");
    }

    #[test]
    fn the_first_moment_has_no_rates() {
        let mut state = State::new(Colours::No);
        state.take(Instant::now(), status(), sessions());
        assert!(state.shares.is_empty());
        assert!(state.lines().iter().all(|line| line.bytes_per_second == 0.0));
    }

    #[test]
    fn a_daemon_that_counts_from_zero_again_has_no_rates_below_zero() {
        let mut state = two_moments();
        let mut fresh = status();
        fresh.packets.kernel = 0;
        fresh.reasons.values_mut().for_each(|count| *count = 0);
        state.take(Instant::now() + Duration::from_secs(9), fresh, sessions());
        assert_eq!((state.kernel_rate, state.shares[0]), (0.0, None));
    }

    #[test]
    fn keys() {
        let mut state = two_moments();
        let [one, other] = ["198.18.1.2:40000", "[2001:db8::2]:40000"];
        assert_eq!(clients(&state), [other, one]);
        state.press(key(KeyCode::Char('s')));
        assert_eq!((state.sort, clients(&state)), (Sort::Packets, vec![one.into(), other.into()]));
        state.press(key(KeyCode::Char('r')));
        assert_eq!(clients(&state), [other, one]);

        for character in "/2001:db8::/32".chars() {
            state.press(key(KeyCode::Char(character)));
        }
        assert_eq!((clients(&state), state.is_typing), (vec![other.to_owned()], true));
        state.press(key(KeyCode::Enter));
        assert_eq!((clients(&state), state.is_typing), (vec![other.to_owned()], false));
        state.press(key(KeyCode::Char('/')));
        state.press(key(KeyCode::Esc));
        assert_eq!(clients(&state).len(), 2, "without a filter again");
        for character in "/alice".chars() {
            state.press(key(KeyCode::Char(character)));
        }
        assert_eq!(clients(&state), [one], "by name");
        state.press(key(KeyCode::Esc));

        state.press(key(KeyCode::Char(' ')));
        assert!(state.is_frozen());
        state.press(key(KeyCode::Char('?')));
        assert!(state.shows_help);
        assert_eq!(state.press(key(KeyCode::Char('q'))), Wish::GoOn, "closes the help");
        assert_eq!(state.press(key(KeyCode::Char('q'))), Wish::Quit);
    }

    #[test]
    fn nobody_scrolls_away_from_all_sessions() {
        let mut state = two_moments();
        for _ in 0..5 {
            state.press(key(KeyCode::PageDown));
        }
        assert_eq!(state.scrolled, 1);
        state.press(key(KeyCode::PageUp));
        assert_eq!(state.scrolled, 0);
    }
}
