//! The protocol between the server and a child process. A frame is a JSON header and bytes, preceded by the
//! lengths of both.

use std::io::{self, Read, Write};

use chrono::NaiveDate;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::pdf::{RenderError, SignaturePage};

/// The largest part of a frame, in bytes. A larger length means that the other side is out of sync.
const LARGEST: u32 = 128 * 1024 * 1024;

/// The first message to a child.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Setup {
    /// The limit of the child's address space, in bytes.
    pub(super) memory: u64,
    /// The CPU time for one document, in seconds.
    pub(super) cpu_seconds: u64,
    /// The files of the templates, each with its path.
    pub(super) templates: Vec<(String, Vec<u8>)>,
}

/// The child's answer to [`Setup`]: it is ready to render.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ready;

/// A document to make.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Job {
    Render {
        template: String,
        data: Value,
        today: NaiveDate,
    },
    /// Append a signature page. The original document follows the header as bytes.
    Append {
        page: SignaturePage,
        language: String,
    },
}

/// The result of a job. The new document follows the header as bytes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Reply {
    pub(super) pages: Result<usize, RenderError>,
    /// True if the child must not be used again.
    pub(super) worn: bool,
}

/// Encodes a frame.
pub(super) fn frame(header: &impl Serialize, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let length = |bytes: &[u8]| {
        let length = u32::try_from(bytes.len()).ok();
        length.filter(|length| *length <= LARGEST).ok_or_else(lost)
    };
    let header = serde_json::to_vec(header)?;
    let mut frame = Vec::with_capacity(8 + header.len() + bytes.len());
    frame.extend_from_slice(&length(&header)?.to_le_bytes());
    frame.extend_from_slice(&length(bytes)?.to_le_bytes());
    frame.extend_from_slice(&header);
    frame.extend_from_slice(bytes);
    Ok(frame)
}

pub(super) fn write(
    output: &mut impl Write,
    header: &impl Serialize,
    bytes: &[u8],
) -> io::Result<()> {
    output.write_all(&frame(header, bytes)?)?;
    output.flush()
}

/// Reads the next frame. `None` if the other side has closed its end.
pub(super) fn read<T: DeserializeOwned>(input: &mut impl Read) -> io::Result<Option<(T, Vec<u8>)>> {
    let mut lengths = [0; 8];
    match input.read_exact(&mut lengths) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let [header, bytes] = sizes(lengths)?;
    let (mut header, mut bytes) = (vec![0; header], vec![0; bytes]);
    input.read_exact(&mut header)?;
    input.read_exact(&mut bytes)?;
    Ok(Some((serde_json::from_slice(&header)?, bytes)))
}

/// Reads the next frame, asynchronously.
pub(super) async fn receive<T: DeserializeOwned>(
    input: &mut (impl AsyncRead + Unpin),
) -> io::Result<(T, Vec<u8>)> {
    let mut lengths = [0; 8];
    input.read_exact(&mut lengths).await?;
    let [header, bytes] = sizes(lengths)?;
    let (mut header, mut bytes) = (vec![0; header], vec![0; bytes]);
    input.read_exact(&mut header).await?;
    input.read_exact(&mut bytes).await?;
    Ok((serde_json::from_slice(&header)?, bytes))
}

fn sizes(lengths: [u8; 8]) -> io::Result<[usize; 2]> {
    let [a, b, c, d, e, f, g, h] = lengths;
    let lengths = [[a, b, c, d], [e, f, g, h]].map(u32::from_le_bytes);
    if lengths.iter().any(|length| *length > LARGEST) {
        return Err(lost());
    }
    Ok(lengths.map(|length| length as usize))
}

fn lost() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a frame is too large")
}
