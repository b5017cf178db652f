use std::{error::Error, time::Duration};

use async_trait::async_trait;
use docg_signature_vendors::{HttpClient, HttpError, HttpRequest, HttpResponse, Method};
use reqwest::{
    header::{AUTHORIZATION, HeaderName, HeaderValue, RETRY_AFTER},
    redirect::Policy,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The HTTP client for calls to external signature providers.
pub(super) struct Client(reqwest::Client);

impl Client {
    pub(super) fn new() -> Result<Self, reqwest::Error> {
        crate::tls::prepare();
        let client = reqwest::Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("docg/", env!("CARGO_PKG_VERSION")));
        client.build().map(Self)
    }

    fn request(&self, request: HttpRequest) -> Result<reqwest::RequestBuilder, String> {
        let method = match request.method {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
            Method::Patch => reqwest::Method::PATCH,
            Method::Delete => reqwest::Method::DELETE,
        };
        let mut built = self.0.request(method, request.url).timeout(request.timeout);
        for (name, value) in request.headers {
            let name = HeaderName::from_static(name);
            // This fails if a token has a line break, which is an error of the configuration.
            let mut value = HeaderValue::try_from(value)
                .map_err(|_| format!("the value of {name} cannot be sent"))?;
            value.set_sensitive(name == AUTHORIZATION);
            built = built.header(name, value);
        }
        if !request.body.is_empty() {
            built = built.body(request.body);
        }
        Ok(built)
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let max_response = request.max_response;
        let request = self.request(request).map_err(HttpError::Unreachable)?;
        let mut response = request.send().await.map_err(failure)?;
        let retry_after = response.headers().get(RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| value.to_str().ok());
        let mut answer = HttpResponse {
            status: response.status().as_u16(),
            retry_after: retry_after.map(str::to_owned),
            body: Vec::new(),
        };
        while let Some(chunk) = response.chunk().await.map_err(failure)? {
            if answer.body.len() + chunk.len() > max_response {
                return Err(HttpError::TooLarge(max_response));
            }
            answer.body.extend_from_slice(&chunk);
        }
        Ok(answer)
    }
}

fn failure(error: reqwest::Error) -> HttpError {
    // Remove the URL: a link to a document gives access to the document.
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    if error.is_connect() || error.is_builder() {
        HttpError::Unreachable(text)
    } else if error.is_timeout() {
        HttpError::TimedOut(text)
    } else {
        HttpError::Broken(text)
    }
}
