//! What comes in by the control socket: a request at the daemon's end, an answer at the other commands' end.
//!
//! The daemon gives one whole answer or none, the right document or none. What another command reads is what was sent, and it
//! can show it.

use std::cell::OnceCell;
use std::path::Path;
use std::rc::Rc;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;
use tokio::sync::broadcast::Receiver;
use tokio::task::LocalSet;
use turn_bpf::control::client::{self, ClientError};
use turn_bpf::control::document::{
    ActionDocument, Channel, Document, SCHEMA, SessionsDocument, StatusDocument,
};
use turn_bpf::control::selector::Selector;
use turn_bpf::control::server::{Action, Line, Source, serve_connection};
use turn_bpf::control::table::{self, Colours};

use crate::bytes::Bytes;

/// The rest of the input is a request, whatever it is.
pub const REQUEST: u8 = 0;
/// It is the path of a request in good order.
pub const PATH: u8 = 1;
/// It is an answer to `turn-bpf status`.
pub const STATUS_ANSWER: u8 = 2;
/// It is an answer to `turn-bpf sessions`.
pub const SESSIONS_ANSWER: u8 = 3;
/// It is the body of such an answer to both.
pub const BODY: u8 = 4;

/// What the daemon tells in all inputs.
pub const STATUS: &str = concat!(
    r#"{"schema":1,"interfaces":[{"name":"eth0","mode":"native","ifindex":2},"#,
    r#"{"name":"eth1","mode":"generic","ifindex":3}],"allocations":3,"bindings":5,"#,
    r#""flows":{"armed":9,"total":10,"max":65536},"packets":{"kernel":99400,"spilled":600,"passed":1234},"#,
    r#""reasons":{"heartbeat":600,"no_flow":1200}}"#
);
/// The same.
pub const SESSIONS: &str = concat!(
    r#"{"schema":1,"sessions":[{"client":"198.18.1.2:40000","server":"198.18.1.1:3478","#,
    r#""relayed":"198.18.2.1:49160","peer":"[2001:db8::2]:5000","channel":"0x4000","state":"kernel","reason":null,"#,
    r#""client_to_peer":{"kernel_packets":12345,"kernel_bytes":2469000,"spilled_packets":42},"#,
    r#""peer_to_client":{"kernel_packets":12001,"kernel_bytes":2400200,"spilled_packets":41}}]}"#
);

/// Runs an input.
pub fn check(input: &[u8]) {
    let bytes = &mut Bytes::new(input);
    match bytes.byte() % 5 {
        REQUEST => request(bytes.rest()),
        PATH => path(bytes.rest()),
        STATUS_ANSWER => answer::<StatusDocument>(bytes.rest(), show_status),
        SESSIONS_ANSWER => answer::<SessionsDocument>(bytes.rest(), show_sessions),
        _ => {
            let body = bytes.rest();
            let with_head = [b"HTTP/1.0 200 OK\r\n\r\n", body].concat();
            answer::<StatusDocument>(&with_head, show_status);
            answer::<SessionsDocument>(&with_head, show_sessions);
        }
    }
}

struct Told;

impl Source for Told {
    fn status(&self) -> StatusDocument {
        serde_json::from_str(STATUS).expect("a status document")
    }

    fn sessions(&self, wanted: &Selector) -> SessionsDocument {
        let mut all: SessionsDocument = serde_json::from_str(SESSIONS).expect("a sessions document");
        all.sessions.retain(|session| wanted.matches(&session.ends()));
        all
    }

    fn events(&self) -> Option<Receiver<Line>> {
        None
    }

    fn act(&self, _: Action, on: &Selector) -> ActionDocument {
        ActionDocument { schema: SCHEMA, sessions: 1, paused: vec![on.clone()] }
    }
}

/// The daemon's answer to these bytes. When nothing more comes, its patience ends at once: the clock stands still until all
/// wait for it.
fn answer_to(request: &[u8]) -> Vec<u8> {
    thread_local!(static RUNTIME: OnceCell<Runtime> = const { OnceCell::new() });
    let conversation = async {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        client.write_all(request).await.expect("room for the request");
        let mut answer = Vec::new();
        let (_, read) =
            tokio::join!(serve_connection(server, Rc::new(Told)), client.read_to_end(&mut answer));
        read.expect("the end of the answer");
        answer
    };
    let new = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime")
    };
    RUNTIME.with(|runtime| LocalSet::new().block_on(runtime.get_or_init(new), conversation))
}

fn request(request: &[u8]) {
    let answer = answer_to(request);
    if answer.is_empty() {
        return;
    }
    let Answer { status, head, body } =
        Answer::read(&answer, request.trim_ascii_start().starts_with(b"HEAD "));
    match status {
        200 => {
            let line = request.trim_ascii_start();
            let asks = |method: &str, path: &str| {
                line.starts_with(method.as_bytes())
                    && line.windows(path.len()).any(|part| part == path.as_bytes())
            };
            let is_status = asks("GET ", "/status") && same_json(body, &whole::<StatusDocument>(STATUS));
            // By the query, of the one session that there is nothing may be left.
            let is_sessions = asks("GET ", "/sessions")
                && (same_json(body, &whole::<SessionsDocument>(SESSIONS)) || same_json(body, NO_SESSIONS));
            let acts = ["/evict", "/pause", "/resume"].iter().any(|path| asks("POST ", path));
            let is_action =
                acts && serde_json::from_str::<ActionDocument>(body).is_ok_and(|done| done.sessions == 1);
            assert!(is_status || is_sessions || is_action, "an answer to another question: {body:?}");
        }
        404 => assert!(body.contains("error"), "no reason in {body:?}"),
        405 => {
            let is_get = request.trim_ascii_start().starts_with(b"GET ");
            assert!(
                head.contains(if is_get { "allow: POST" } else { "allow: " }),
                "nothing allowed in {head:?}"
            );
        }
        503 => assert!(body.contains("too many")),
        400 if body.contains("error") => {}
        // What is no HTTP, or too much of it.
        400 | 408 | 414 | 431 | 505 => assert!(body.is_empty()),
        other => panic!("status {other}"),
    }
}

/// A request in good order, for any path.
fn path(bytes: &[u8]) {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-~?=&%".contains(byte);
    let path: Vec<u8> = bytes.iter().copied().filter(allowed).take(1000).collect();
    let path = String::from_utf8(path).expect("ASCII");
    let request = format!("GET /{path} HTTP/1.1\r\nHost: turn-bpf\r\n\r\n");
    let answer = answer_to(request.as_bytes());
    let Answer { status, body, .. } = Answer::read(&answer, false);
    let (name, query) = path.split_once('?').unwrap_or((&path, ""));
    let selector = Selector::from_query(query);
    if let Ok(selector) = &selector {
        assert_eq!(Selector::from_query(&selector.to_query()).as_ref(), Ok(selector), "{query}");
        assert!(selector.covers(selector), "{query}");
    }
    let expected = match (name, &selector) {
        ("evict" | "pause" | "resume", _) => 405,
        (_, Err(_)) => 400,
        ("status" | "sessions", Ok(_)) => 200,
        ("events", Ok(_)) => 503,
        _ => 404,
    };
    assert_eq!(status, expected, "/{path}: {body}");
    match (status, name, query) {
        (200, "status", _) => assert!(same_json(body, &whole::<StatusDocument>(STATUS)), "{body}"),
        (200, "sessions", "") => assert!(same_json(body, &whole::<SessionsDocument>(SESSIONS)), "{body}"),
        _ => {}
    }
}

const NO_SESSIONS: &str = r#"{"schema":1,"sessions":[]}"#;

/// With the keys that were added since, which have a value of their own where they are not given.
fn whole<T: Document>(document: &str) -> String {
    let document: T = serde_json::from_str(document).expect("a document");
    serde_json::to_string(&document).expect("JSON")
}

/// Another command gets an answer.
fn answer<T: Document + PartialEq + std::fmt::Debug>(answer: &[u8], show: impl Fn(&T) -> String) {
    let socket = Path::new("/run/turn-bpf/control.sock");
    let text = str::from_utf8(answer).ok();
    let body = text.and_then(|text| text.split_once("\r\n\r\n")).map(|(_, body)| body);
    match client::read_answer::<T>(socket, answer) {
        Ok(document) => {
            assert_eq!(document.schema(), SCHEMA);
            assert!(answer.starts_with(b"HTTP/1."), "the answer of something else");
            let sent: Value = serde_json::from_str(body.expect("a body")).expect("JSON");
            let read = serde_json::to_value(&document).expect("a document");
            assert!(is_within(&read, &sent), "read {read}, sent {sent}");
            let again: T = serde_json::from_value(read).expect("what is written can be read");
            assert_eq!(again, document);
            assert!(show(&document).ends_with('\n'));
        }
        Err(error) => {
            assert_eq!(error.exit_code(), 1, "somebody did answer");
            assert!(error.to_string().contains("/run/turn-bpf/control.sock"), "{error}");
            if let ClientError::OtherSchema { found, .. } = error {
                assert_ne!(found, SCHEMA);
            }
        }
    }
}

fn show_status(document: &StatusDocument) -> String {
    table::status(document, Colours::No)
}

fn show_sessions(document: &SessionsDocument) -> String {
    for session in &document.sessions {
        let Channel(number) = session.channel;
        assert_eq!(session.channel.to_string(), format!("0x{number:04x}"));
    }
    table::sessions(document)
}

/// Everything that was read was sent so; what a newer daemon adds may be missing.
fn is_within(read: &Value, sent: &Value) -> bool {
    match (read, sent) {
        (Value::Object(read), Value::Object(sent)) => {
            read.iter().all(|(key, value)| sent.get(key).is_none_or(|sent| is_within(value, sent)))
        }
        (Value::Array(read), Value::Array(sent)) => {
            read.len() == sent.len() && read.iter().zip(sent).all(|(read, sent)| is_within(read, sent))
        }
        // Addresses and channels may be written in several ways.
        (Value::String(read), Value::String(sent)) => {
            let address = |text: &str| text.parse::<std::net::SocketAddr>().ok();
            read == sent
                || address(read).is_some_and(|read| address(sent) == Some(read))
                || read.eq_ignore_ascii_case(sent)
        }
        _ => read == sent,
    }
}

fn same_json(body: &str, document: &str) -> bool {
    serde_json::from_str::<Value>(body).ok() == serde_json::from_str(document).ok()
}

/// One answer of HTTP/1, and nothing behind it.
struct Answer<'a> {
    status: u16,
    head: &'a str,
    body: &'a str,
}

impl<'a> Answer<'a> {
    fn read(answer: &'a [u8], to_head: bool) -> Self {
        let text = str::from_utf8(answer).expect("an answer in text");
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("half an answer: {text:?}"));
        let mut words = head.split(' ');
        assert!(matches!(words.next(), Some("HTTP/1.0" | "HTTP/1.1")), "{head:?}");
        let status = words.next().and_then(|status| status.parse().ok()).expect("a status");
        let length = head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .map_or(0, |(_, length)| length.parse().expect("a length"));
        assert_eq!(body.len(), if to_head { 0 } else { length }, "{text:?}");
        Self { status, head, body }
    }
}
