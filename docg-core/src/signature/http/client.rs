use std::{fmt, time::Duration};

use async_trait::async_trait;

/// An HTTP client with TLS, of whichever kind the application uses.
///
/// It must not follow redirects, send the headers of a request anywhere else, or read more of a body
/// than [`HttpRequest::max_response`].
#[async_trait]
pub trait HttpClient: Send + Sync + 'static {
    /// Sends a request and reads the whole answer, whatever its status.
    ///
    /// # Errors
    ///
    /// [`HttpError`] where there is no whole answer.
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError>;
}

/// A request. Its headers may hold a token, so they are not printed.
#[derive(Clone)]
pub struct HttpRequest {
    /// The method.
    pub method: Method,
    /// Where to.
    pub url: String,
    /// Names in lower case, with their values.
    pub headers: Vec<(&'static str, String)>,
    /// The body, which may be empty.
    pub body: Vec<u8>,
    /// How long all of it may take.
    pub timeout: Duration,
    /// The largest body of an answer, in bytes.
    pub max_response: usize,
}

impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRequest")
            .field("method", &self.method)
            .field("url", &self.url)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// A request's method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// `GET`
    Get,
    /// `POST`
    Post,
    /// `PATCH`
    Patch,
    /// `DELETE`
    Delete,
}

impl Method {
    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// An answer.
#[derive(Debug, Clone, Default)]
pub struct HttpResponse {
    /// The status code.
    pub status: u16,
    /// The value of `Retry-After`.
    pub retry_after: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

/// Why there is no whole answer. The texts hold no header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// No connection came about: the request has not gone out.
    #[error("not reachable: {0}")]
    Unreachable(String),
    /// There was no whole answer in time.
    #[error("no answer in time: {0}")]
    TimedOut(String),
    /// The connection broke off after the request had gone out.
    #[error("broken off: {0}")]
    Broken(String),
    /// The answer is larger than was asked for.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
}
