//! The other commands' end of the control socket.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use super::document::{ActionDocument, Document, SCHEMA, SessionsDocument};
use super::event::Event;
use super::selector::Selector;
use super::server::Action;

/// The document that the daemon at `socket` gives at this moment.
pub fn fetch<T: Document>(socket: &Path) -> Result<T, ClientError> {
    read(socket, &fetch_json(socket, T::PATH)?)
}

/// The same as the daemon wrote it, with what a newer one may have added.
pub fn fetch_json(socket: &Path, document: &str) -> Result<String, ClientError> {
    ask(socket, "GET", document)
}

/// The sessions that are wanted.
pub fn sessions(socket: &Path, wanted: &Selector) -> Result<SessionsDocument, ClientError> {
    read(socket, &sessions_json(socket, wanted)?)
}

/// The same as the daemon wrote it.
pub fn sessions_json(socket: &Path, wanted: &Selector) -> Result<String, ClientError> {
    fetch_json(socket, &with_query(SessionsDocument::PATH, wanted))
}

/// Has something done with sessions.
pub fn act(socket: &Path, action: Action, on: &Selector) -> Result<ActionDocument, ClientError> {
    read(socket, &act_json(socket, action, on)?)
}

/// The same, with the answer as the daemon wrote it.
pub fn act_json(socket: &Path, action: Action, on: &Selector) -> Result<String, ClientError> {
    ask(socket, "POST", &with_query(action.path(), on))
}

/// Gives each line of the daemon's events to `take`, until it wants no more (an error) or the daemon ends.
pub fn events<E>(
    socket: &Path,
    mut take: impl FnMut(&str) -> Result<(), E>,
) -> Result<Result<(), E>, ClientError> {
    let exchange = |source| ClientError::Exchange { path: socket.to_owned(), source };
    let mut stream = UnixStream::connect(socket).map_err(|error| ClientError::from_connect(socket, error))?;
    send(&mut stream, "GET", Event::PATH).map_err(exchange)?;
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    // The head ends with an empty line.
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).map_err(exchange)? == 0 {
            return Err(ClientError::NotHttp { path: socket.to_owned() });
        }
    }
    let (status, _) =
        parse_response(head.as_bytes()).ok_or_else(|| ClientError::NotHttp { path: socket.to_owned() })?;
    if status != OK {
        return Err(ClientError::Refused {
            path: socket.to_owned(),
            document: Event::PATH.to_owned(),
            status,
        });
    }
    // From here on it may take as long as it takes.
    stream.get_ref().set_read_timeout(None).map_err(exchange)?;
    let mut line = String::new();
    while stream.read_line(&mut line).map_err(exchange)? > 0 {
        if let Err(enough) = take(line.trim_end()) {
            return Ok(Err(enough));
        }
        line.clear();
    }
    Ok(Ok(()))
}

fn with_query(path: &str, selector: &Selector) -> String {
    if selector.is_all() { path.to_owned() } else { format!("{path}?{}", selector.to_query()) }
}

fn ask(socket: &Path, method: &str, document: &str) -> Result<String, ClientError> {
    let mut stream = UnixStream::connect(socket).map_err(|error| ClientError::from_connect(socket, error))?;
    let exchange = |source| ClientError::Exchange { path: socket.to_owned(), source };
    let answer = exchange_once(&mut stream, method, document).map_err(exchange)?;
    Ok(body(socket, document, &answer)?.to_owned())
}

/// The document in an answer, of whoever listens at `socket`.
pub fn read_answer<T: Document>(socket: &Path, answer: &[u8]) -> Result<T, ClientError> {
    read(socket, body(socket, T::PATH, answer)?)
}

fn body<'a>(socket: &Path, document: &str, answer: &'a [u8]) -> Result<&'a str, ClientError> {
    let (status, body) =
        parse_response(answer).ok_or_else(|| ClientError::NotHttp { path: socket.to_owned() })?;
    match status {
        OK => Ok(body),
        status => {
            Err(ClientError::Refused { path: socket.to_owned(), document: document.to_owned(), status })
        }
    }
}

fn read<T: Document>(socket: &Path, body: &str) -> Result<T, ClientError> {
    let malformed = |source| ClientError::Malformed { path: socket.to_owned(), source };
    let document: T = serde_json::from_str(body).map_err(malformed)?;
    match document.schema() {
        SCHEMA => Ok(document),
        found => Err(ClientError::OtherSchema { path: socket.to_owned(), found }),
    }
}

/// Why the daemon told nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no turn-bpf runs with the control socket {path}; start one with `turn-bpf run`, or name its socket with \
         --control"
    )]
    NoDaemon {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// We may not talk to it.
    #[error(
        "not allowed to connect to the control socket {path}; be root, or in the group that it belongs to"
    )]
    NotAllowed {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It cannot be connected to for another reason.
    #[error("cannot connect to the control socket {path}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The connection broke.
    #[error("turn-bpf at {path} did not answer")]
    Exchange {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// What listens there is something else.
    #[error("what listens at {path} does not speak HTTP; is it a turn-bpf?")]
    NotHttp {
        /// The socket.
        path: PathBuf,
    },
    /// The daemon does not have that document.
    #[error("turn-bpf at {path} answered {status} for {document}; is it an older version?")]
    Refused {
        /// The socket.
        path: PathBuf,
        /// What was asked for.
        document: String,
        /// The HTTP status.
        status: u16,
    },
    /// The document cannot be read.
    #[error("the answer of turn-bpf at {path} cannot be read; is it another version?")]
    Malformed {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The document is of another version.
    #[error(
        "turn-bpf at {path} speaks version {found} of the documents, and this one {SCHEMA}; use the same version"
    )]
    OtherSchema {
        /// The socket.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

impl ClientError {
    /// The exit code that goes with it: 3 says that there is no daemon, 1 anything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NoDaemon { .. } => 3,
            _ => 1,
        }
    }

    fn from_connect(socket: &Path, source: io::Error) -> Self {
        let path = socket.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Self::NoDaemon { path, source },
            io::ErrorKind::PermissionDenied => Self::NotAllowed { path, source },
            _ => Self::Connect { path, source },
        }
    }
}

/// HTTP/1.0, so that the answer is neither in chunks nor followed by another.
fn exchange_once(stream: &mut UnixStream, method: &str, document: &str) -> io::Result<Vec<u8>> {
    send(stream, method, document)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

fn send(stream: &mut UnixStream, method: &str, document: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "{method} {document} HTTP/1.0\r\nHost: turn-bpf\r\nContent-Length: 0\r\n\r\n")
}

/// The status and the body of an HTTP response.
fn parse_response(answer: &[u8]) -> Option<(u16, &str)> {
    let answer = str::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let mut words = head.lines().next()?.split(' ');
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    Some((words.next()?.parse().ok()?, body))
}

const OK: u16 = 200;
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses() {
        let cases = [
            ("HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n{}\n", Some((200, "{}\n"))),
            ("HTTP/1.1 404 Not Found\r\n\r\n", Some((404, ""))),
            ("SSH-2.0-OpenSSH_9.2\r\n\r\n", None),
            ("HTTP/1.0 200 OK\r\n", None),
            ("", None),
        ];
        for (answer, expected) in cases {
            assert_eq!(parse_response(answer.as_bytes()), expected, "{answer:?}");
        }
    }

    #[test]
    fn exit_codes() {
        let failure = |kind: io::ErrorKind| ClientError::from_connect(Path::new("/run/x.sock"), kind.into());
        assert_eq!(failure(io::ErrorKind::NotFound).exit_code(), 3);
        assert_eq!(failure(io::ErrorKind::ConnectionRefused).exit_code(), 3);
        assert_eq!(failure(io::ErrorKind::PermissionDenied).exit_code(), 1);
        assert_eq!(failure(io::ErrorKind::Interrupted).exit_code(), 1);
    }
}
