//! The daemon's end of the control socket.

use std::{
    cell::Cell,
    convert::Infallible,
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use http_body_util::{
    Either, Full,
    channel::{Channel, Sender},
};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{UnixListener, UnixStream},
    sync::broadcast::{Receiver, error::RecvError},
    task::{LocalSet, spawn_local},
    time::{sleep, timeout},
};

use super::{
    document::{ActionDocument, Document, SessionsDocument, StatusDocument},
    event::{Event, EventKind},
    selector::Selector,
};

/// A line of JSON, ready to be sent.
pub type Line = Bytes;

/// Where the documents come from. Asked on the thread that serves them.
pub trait Source {
    /// The status at this moment.
    fn status(&self) -> StatusDocument;
    /// The channel bindings that are wanted, at this moment.
    fn sessions(&self, wanted: &Selector) -> SessionsDocument;
    /// What happens from now on, a line of JSON each; none where there are too many readers.
    fn events(&self) -> Option<Receiver<Line>>;
    /// Does what an operator wants done with sessions.
    fn act(&self, action: Action, on: &Selector) -> ActionDocument;
}

/// What an operator can do with sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Forget them, until the server binds their channels again.
    Evict,
    /// Have them go through the server, those also that come later.
    Pause,
    /// End that.
    Resume,
}

impl Action {
    const ALL: [Self; 3] = [Self::Evict, Self::Pause, Self::Resume];

    /// The path that it is posted to.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Evict => "/evict",
            Self::Pause => "/pause",
            Self::Resume => "/resume",
        }
    }
}

type Answer = Response<Either<Full<Bytes>, Channel<Bytes>>>;

/// A listening control socket. Its file goes when it is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket's file, by which we know it as ours.
    file: Option<(u64, u64)>,
}

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Somebody answers there.
    #[error(
        "control socket in use by another turn-bpf: {0}; stop that one, or choose another with --control"
    )]
    InUse(PathBuf),
    /// Something else is in its place.
    #[error("cannot make the control socket: {0} exists and is not a socket; choose another with --control")]
    NotASocket(PathBuf),
    /// Its folder could not be made.
    #[error("cannot make the folder {path} for the control socket; choose another with --control")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The socket itself could not be made.
    #[error("cannot make the control socket {path}; choose another with --control")]
    Bind {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What a dead daemon left could not be taken away.
    #[error("cannot replace the control socket {path} that an earlier turn-bpf left")]
    Stale {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl ControlSocket {
    /// Listens at `path`: makes its folder, and takes the place of a socket that a dead daemon left. Owner and group may
    /// connect, nobody else.
    pub async fn bind(path: &Path) -> Result<Self, ServerError> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)
                .map_err(|source| ServerError::Folder { path: folder.to_owned(), source })?;
        }
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_stale(path).await?;
                UnixListener::bind(path)
            }
            other => other,
        };
        let bind_error = |source| ServerError::Bind { path: path.to_owned(), source };
        let socket =
            Self { listener: listener.map_err(bind_error)?, path: path.to_owned(), file: identity(path) };
        fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE)).map_err(bind_error)?;
        Ok(socket)
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Answers requests until it is dropped. Needs no more than a current-thread runtime.
    pub async fn serve(&self, source: Rc<impl Source + 'static>) -> Infallible {
        LocalSet::new()
            .run_until(async {
                loop {
                    match self.listener.accept().await {
                        Ok((stream, _)) => drop(spawn_local(serve_connection(stream, Rc::clone(&source)))),
                        Err(error) => {
                            tracing::warn!(%error, "cannot accept a connection at the control socket");
                            sleep(ACCEPT_RETRY).await;
                        }
                    }
                }
            })
            .await
    }
}

impl Drop for ControlSocket {
    /// Leaves the file alone if it is another's by now.
    fn drop(&mut self) {
        if self.file.is_some() && identity(&self.path) == self.file {
            // Nobody is left who could do something about an error.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Takes away the socket of a daemon that is dead, and nothing else.
async fn remove_stale(path: &Path) -> Result<(), ServerError> {
    if !fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
        return Err(ServerError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|source| ServerError::Stale { path: path.to_owned(), source })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Not only a connection tells that it lives: so does a full backlog.
        Ok(_) | Err(_) => Err(ServerError::InUse(path.to_owned())),
    }
}

/// One request and its answer, on a connection of any kind, inside a `LocalSet`.
pub async fn serve_connection(stream: impl AsyncRead + AsyncWrite + Unpin, source: Rc<impl Source>) {
    let is_stream = Rc::new(Cell::new(false));
    let service = service_fn(async |request| {
        let answer = respond(&request, &*source);
        is_stream.set(matches!(answer.body(), Either::Right(_)));
        Ok::<_, Infallible>(answer)
    });
    let connection = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = match timeout(CONNECTION_LIMIT, &mut connection).await {
        Err(_) if is_stream.get() => Ok(connection.await),
        ended => ended,
    };
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection at the control socket broke"),
        Err(_) => tracing::debug!("a connection at the control socket sent no request"),
    }
}

fn respond(request: &Request<Incoming>, source: &impl Source) -> Answer {
    let path = request.uri().path();
    let action = Action::ALL.into_iter().find(|action| action.path() == path);
    let wanted = if action.is_some() { Method::POST } else { Method::GET };
    if request.method() != wanted {
        let is_post = wanted == Method::POST;
        let error = if is_post { "only POST" } else { "only GET" };
        let mut response = refuse(StatusCode::METHOD_NOT_ALLOWED, error);
        let allowed = HeaderValue::from_static(if is_post { "POST" } else { "GET" });
        response.headers_mut().insert(ALLOW, allowed);
        return response;
    }
    let selector = match Selector::from_query(request.uri().query().unwrap_or_default()) {
        Ok(selector) => selector,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    match (path, action) {
        (_, Some(action)) => json(StatusCode::OK, &source.act(action, &selector)),
        (StatusDocument::PATH, _) => json(StatusCode::OK, &source.status()),
        (SessionsDocument::PATH, _) => json(StatusCode::OK, &source.sessions(&selector)),
        (Event::PATH, _) => match source.events() {
            Some(events) => stream(events),
            None => refuse(StatusCode::SERVICE_UNAVAILABLE, "too many readers of events"),
        },
        _ => refuse(
            StatusCode::NOT_FOUND,
            "there are /status, /sessions and /events, and to post to /evict, /pause and /resume",
        ),
    }
}

/// Events until one end goes away.
fn stream(events: Receiver<Bytes>) -> Answer {
    let (sender, body) = Channel::new(1);
    spawn_local(forward(events, sender));
    let mut response = Response::new(Either::Right(body));
    let kind = HeaderValue::from_static("application/jsonl");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// What a reader does not take waits in the one buffer that all readers share. It has an end.
async fn forward(mut events: Receiver<Bytes>, mut sender: Sender<Bytes>) {
    loop {
        let line = match events.recv().await {
            Ok(line) => line,
            Err(RecvError::Lagged(count)) => {
                line(&Event { count: Some(count), ..Event::now(EventKind::Missed) })
            }
            Err(RecvError::Closed) => return,
        };
        if sender.send_data(line).await.is_err() {
            return;
        }
    }
}

/// A document on a line of its own.
pub fn line(document: &impl Serialize) -> Bytes {
    let mut line = serde_json::to_vec(document).expect("our documents have string keys and finite numbers");
    line.push(b'\n');
    Bytes::from(line)
}

fn refuse(status: StatusCode, error: &str) -> Answer {
    json(status, &Refusal { error })
}

fn json(status: StatusCode, document: &impl Serialize) -> Answer {
    let mut response = Response::new(Either::Left(Full::new(line(document))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[derive(Serialize)]
struct Refusal<'a> {
    error: &'a str,
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

const SOCKET_MODE: u32 = 0o660;
const CONNECTION_LIMIT: Duration = Duration::from_secs(5);
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
