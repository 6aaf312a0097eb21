//! The daemon's end of the control socket.

use std::{
    convert::Infallible,
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use http_body_util::Full;
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
    net::{UnixListener, UnixStream},
    task::{LocalSet, spawn_local},
    time::{sleep, timeout},
};

use super::document::{Document, SessionsDocument, StatusDocument};

/// Where the documents come from. Asked on the thread that serves them.
pub trait Source {
    /// The status at this moment.
    fn status(&self) -> StatusDocument;
    /// The channel bindings at this moment.
    fn sessions(&self) -> SessionsDocument;
}

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

/// One request and its answer.
async fn serve_connection(stream: UnixStream, source: Rc<impl Source>) {
    let service = service_fn(async |request| Ok::<_, Infallible>(respond(&request, &*source)));
    let connection = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_LIMIT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection at the control socket broke"),
        Err(_) => tracing::debug!("a connection at the control socket sent no request"),
    }
}

fn respond(request: &Request<Incoming>, source: &impl Source) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        let mut response = json(StatusCode::METHOD_NOT_ALLOWED, &Refusal { error: "only GET" });
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    match request.uri().path() {
        StatusDocument::PATH => json(StatusCode::OK, &source.status()),
        SessionsDocument::PATH => json(StatusCode::OK, &source.sessions()),
        _ => json(StatusCode::NOT_FOUND, &Refusal { error: "there are /status and /sessions" }),
    }
}

fn json(status: StatusCode, document: &impl Serialize) -> Response<Full<Bytes>> {
    let mut body = serde_json::to_vec(document).expect("our documents have string keys and finite numbers");
    body.push(b'\n');
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[derive(Serialize)]
struct Refusal {
    error: &'static str,
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

const SOCKET_MODE: u32 = 0o660;
const CONNECTION_LIMIT: Duration = Duration::from_secs(5);
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
