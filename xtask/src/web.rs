//! `cargo xtask web`: the page that trains in a browser. Builds it, serves it, and tests it in Chromium without a window.

mod base64;
mod browser;
mod check;
mod devtools;
mod drawn;
mod page;
mod server;
mod site;

use crate::shell::Outcome;
use server::Server;

/// Where `--serve` listens, unless another program does.
const PORT: u16 = 8017;

/// Builds the page into `target/web`.
pub(crate) fn build() -> Outcome {
    let folder = site::build()?;
    println!("\nThe page: {}", folder.display());
    println!(
        "Any server of files can offer it, over https or on localhost; here: cargo xtask web --serve"
    );
    Ok(())
}

/// Builds the page and serves it on this machine until interrupted.
pub(crate) fn serve() -> Outcome {
    let folder = site::build()?;
    let server = Server::new(folder.clone(), PORT).or_else(|_| Server::new(folder, 0))?;
    println!(
        "\nhttp://localhost:{} (to end: Ctrl-C)",
        server.address.port()
    );
    server.run();
    Ok(())
}

/// Builds the page and tests it.
pub(crate) fn test() -> Outcome {
    check::run()
}
