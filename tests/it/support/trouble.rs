//! The ways in which a server of small documents fails.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::server::{Next, head};

#[derive(Clone, Debug)]
pub enum Trouble {
    /// This status, with a body that would be good with another one.
    Status(u16),
    /// A body that is not what it should be.
    Body(&'static str),
    /// Nothing is ever answered.
    Silence,
    /// The body begins well and never ends.
    SilenceInBody,
    /// The body goes on and on.
    Endless,
    /// The connection closes within the body.
    CutShort,
    /// Somewhere else.
    Redirect(String),
}

impl Trouble {
    /// Answers in its way.
    pub async fn answer(self, stream: &mut TcpStream) -> io::Result<Next> {
        let length = |length: u64| ("content-length", length.to_string());
        match self {
            Self::Status(status) => {
                stream.write_all(&head(&format!("{status} Trouble"), &[length(2)])).await?;
                stream.write_all(b"[]").await?;
                Ok(Next::KeepAlive)
            }
            Self::Body(body) => {
                stream.write_all(&head("200 OK", &[length(body.len() as u64)])).await?;
                stream.write_all(body.as_bytes()).await?;
                Ok(Next::KeepAlive)
            }
            Self::Silence => silence(stream).await,
            Self::SilenceInBody => {
                stream.write_all(&head("200 OK", &[length(1000)])).await?;
                stream.write_all(b"[").await?;
                silence(stream).await
            }
            Self::Endless => {
                stream.write_all(&head("200 OK", &[length(1 << 40)])).await?;
                loop {
                    stream.write_all(&[b' '; 1 << 12]).await?;
                }
            }
            Self::CutShort => {
                stream.write_all(&head("200 OK", &[length(1000)])).await?;
                stream.write_all(b"[]").await?;
                Ok(Next::Close)
            }
            Self::Redirect(to) => {
                stream.write_all(&head("302 Found", &[("location", to), length(0)])).await?;
                Ok(Next::KeepAlive)
            }
        }
    }
}

async fn silence(stream: &mut TcpStream) -> io::Result<Next> {
    while stream.read(&mut [0; 1024]).await? > 0 {}
    Ok(Next::Close)
}
