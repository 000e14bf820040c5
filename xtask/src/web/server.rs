//! A server of the files of a folder, for this machine alone.

use crate::shell::Outcome;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};

/// Listens on localhost.
pub(super) struct Server {
    /// Where it listens.
    pub(super) address: SocketAddr,
    folder: PathBuf,
    listener: TcpListener,
}

impl Server {
    /// Serves a folder on a port; 0 takes any that is free.
    pub(super) fn new(folder: PathBuf, port: u16) -> Outcome<Self> {
        let failure = |error| format!("port {port} of this machine: {error}");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(failure)?;
        Ok(Self {
            address: listener.local_addr().map_err(failure)?,
            folder,
            listener,
        })
    }

    /// Answers until the program ends.
    pub(super) fn run(self) {
        for stream in self.listener.incoming().flatten() {
            let folder = self.folder.clone();
            // A browser that goes away in the middle of an answer is no failure of ours.
            std::thread::spawn(move || answer(&stream, &folder).ok());
        }
    }
}

fn answer(mut stream: &TcpStream, folder: &Path) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    // The rest of the request says nothing that matters here, but has to be taken.
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let found = file(&request)
        .and_then(|name| fs::read(folder.join(&name)).ok().map(|bytes| (name, bytes)));
    let (status, kind, bytes) = match found {
        Some((name, bytes)) => ("200 OK", content_type(&name), bytes),
        None => (
            "404 Not Found",
            "text/plain",
            b"There is no such file.\n".to_vec(),
        ),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n",
        bytes.len()
    )?;
    stream.write_all(&bytes)
}

/// The file that a request is about, inside the folder.
fn file(request: &str) -> Option<PathBuf> {
    let path = request.strip_prefix("GET /")?.split([' ', '?']).next()?;
    let path = PathBuf::from(if path.is_empty() { "index.html" } else { path });
    let stays_inside = path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    stays_inside.then_some(path)
}

fn content_type(path: &Path) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("wasm") => "application/wasm",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::file;
    use std::path::PathBuf;

    #[test]
    fn requests_stay_inside_the_folder() {
        let name = |request| file(request).map(PathBuf::into_os_string);
        assert_eq!(name("GET / HTTP/1.1"), Some("index.html".into()));
        assert_eq!(name("GET /a/b.js?x=1 HTTP/1.1"), Some("a/b.js".into()));
        for request in [
            "GET /../secret HTTP/1.1",
            "GET //etc/passwd HTTP/1.1",
            "POST / HTTP/1.1",
            "",
        ] {
            assert_eq!(name(request), None, "{request}");
        }
    }
}
