use std::{fmt, time::Duration};

use async_trait::async_trait;

/// The application's HTTP client, with TLS.
///
/// The client must not follow redirects or send a request's headers to another host. It must stop reading a
/// body that exceeds [`HttpRequest::max_response`].
#[async_trait]
pub trait HttpClient: Send + Sync + 'static {
    /// Sends a request and reads the whole answer, whatever its status.
    ///
    /// # Errors
    ///
    /// [`HttpError`] if there is no whole answer.
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError>;
}

/// A request. `Debug` leaves out its headers, because they may hold a token.
#[derive(Clone)]
pub struct HttpRequest {
    /// The method.
    pub method: Method,
    /// The absolute URL.
    pub url: String,
    /// Header names in lower case, with their values.
    pub headers: Vec<(&'static str, String)>,
    /// The body; may be empty.
    pub body: Vec<u8>,
    /// The time limit for the whole exchange, from connecting to the end of the answer.
    pub timeout: Duration,
    /// The largest allowed body of the answer, in bytes.
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

/// The method of a request.
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
    /// The method's name in HTTP.
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

/// An answer to a request.
#[derive(Debug, Clone, Default)]
pub struct HttpResponse {
    /// The status code.
    pub status: u16,
    /// The value of the header `Retry-After`, if there is one.
    pub retry_after: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

/// The reason why there is no whole answer. The texts must contain no header value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// No connection could be made, so the request was not sent.
    #[error("not reachable: {0}")]
    Unreachable(String),
    /// The whole answer did not arrive in time.
    #[error("no answer in time: {0}")]
    TimedOut(String),
    /// The connection broke after the request was sent.
    #[error("broken off: {0}")]
    Broken(String),
    /// The answer exceeds [`HttpRequest::max_response`], given in bytes.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
}
