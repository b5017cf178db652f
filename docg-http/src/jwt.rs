//! JSON Web Tokens (RFC 7519) as bearer tokens.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use axum::http::HeaderMap;
use docg_core::ids::OrganizationId;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde::{Deserialize, Serialize};

use crate::auth::{AuthError, Authenticator, Principal, bearer};

/// The least length of a secret, in bytes. RFC 7518, section 3.2, requires a secret that is not shorter
/// than the hash.
const SHORTEST_SECRET: usize = 32;

/// Authenticates by signed tokens of one issuer, with one key and one algorithm. A token that names
/// another algorithm is refused.
///
/// `sub` is the actor. `organizations` is a list of UUIDs. `scope` is a text of scopes with spaces
/// between them (RFC 8693, section 4.2); scopes that docg does not know are ignored. `exp` is required.
///
/// ```
/// use docg_http::JwtTokens;
///
/// let tokens = JwtTokens::hs256(b"a secret of at least 32 bytes ...")?
///     .issuer("https://login.example.com")
///     .audience("docg");
/// # Ok::<(), docg_http::JwtKeyError>(())
/// ```
pub struct JwtTokens {
    key: DecodingKey,
    validation: Validation,
}

/// A key that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JwtKeyError {
    /// The secret has fewer than 32 bytes.
    #[error("a secret has at least {SHORTEST_SECRET} bytes")]
    ShortSecret,
    /// The key does not fit the algorithm.
    #[error("the key cannot be read: {0}")]
    Unreadable(String),
}

impl JwtTokens {
    /// Accepts tokens that are signed with a shared secret (HS256).
    ///
    /// # Errors
    ///
    /// `ShortSecret` if the secret has fewer than 32 bytes.
    pub fn hs256(secret: &[u8]) -> Result<Self, JwtKeyError> {
        if secret.len() < SHORTEST_SECRET {
            return Err(JwtKeyError::ShortSecret);
        }
        Ok(Self::new(
            DecodingKey::from_secret(secret),
            Algorithm::HS256,
        ))
    }

    /// Accepts tokens that this RSA public key, in PEM, verifies (RS256).
    ///
    /// # Errors
    ///
    /// `Unreadable` if the text is not a public key of this kind in PEM.
    pub fn rs256(pem: &[u8]) -> Result<Self, JwtKeyError> {
        let key = DecodingKey::from_rsa_pem(pem).map_err(unreadable)?;
        Ok(Self::new(key, Algorithm::RS256))
    }

    /// Accepts tokens that this P-256 public key, in PEM, verifies (ES256).
    ///
    /// # Errors
    ///
    /// `Unreadable` if the text is not a public key of this kind in PEM.
    pub fn es256(pem: &[u8]) -> Result<Self, JwtKeyError> {
        let key = DecodingKey::from_ec_pem(pem).map_err(unreadable)?;
        Ok(Self::new(key, Algorithm::ES256))
    }

    /// Accepts tokens that this Ed25519 public key, in PEM, verifies.
    ///
    /// # Errors
    ///
    /// `Unreadable` if the text is not a public key of this kind in PEM.
    pub fn ed25519(pem: &[u8]) -> Result<Self, JwtKeyError> {
        let key = DecodingKey::from_ed_pem(pem).map_err(unreadable)?;
        Ok(Self::new(key, Algorithm::EdDSA))
    }

    fn new(key: DecodingKey, algorithm: Algorithm) -> Self {
        let mut validation = Validation::new(algorithm);
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp", "sub"]);
        Self { key, validation }
    }

    /// Accepts only tokens of this issuer.
    #[must_use]
    pub fn issuer(mut self, issuer: &str) -> Self {
        self.validation.set_issuer(&[issuer]);
        self.validation
            .required_spec_claims
            .insert("iss".to_owned());
        self
    }

    /// Accepts only tokens for this audience. Without this call, tokens that name an audience are refused.
    #[must_use]
    pub fn audience(mut self, audience: &str) -> Self {
        self.validation.set_audience(&[audience]);
        self.validation
            .required_spec_claims
            .insert("aud".to_owned());
        self
    }

    fn claims(&self, headers: &HeaderMap) -> Result<Claims, AuthError> {
        let token = bearer(headers).ok_or(AuthError)?;
        let token = decode::<Claims>(token, &self.key, &self.validation);
        token.map(|token| token.claims).map_err(|error| {
            tracing::debug!("a token is refused: {error}");
            AuthError
        })
    }
}

fn unreadable(error: impl fmt::Display) -> JwtKeyError {
    JwtKeyError::Unreadable(error.to_string())
}

/// The claims of a token that docg needs. Written as JSON they are also the token's receipt.
#[derive(Serialize, Deserialize)]
struct Claims {
    sub: String,
    #[serde(default)]
    organizations: Vec<OrganizationId>,
    #[serde(default)]
    scope: String,
    exp: u64,
}

impl Claims {
    fn principal(self) -> Principal {
        Principal {
            scopes: self
                .scope
                .split(' ')
                .filter_map(|name| name.parse().ok())
                .collect(),
            actor: self.sub,
            organizations: self.organizations,
        }
    }
}

impl fmt::Debug for JwtTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtTokens")
            .field("algorithms", &self.validation.algorithms)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Authenticator for JwtTokens {
    async fn authenticate(&self, headers: &HeaderMap) -> Result<Principal, AuthError> {
        Ok(self.claims(headers)?.principal())
    }

    /// The token's claims without its signature, so that nobody can use the receipt as a token.
    async fn receipt(&self, headers: &HeaderMap) -> Result<String, AuthError> {
        serde_json::to_string(&self.claims(headers)?).map_err(|_| AuthError)
    }

    async fn recognize(&self, receipt: &str) -> Result<Principal, AuthError> {
        let claims: Claims = serde_json::from_str(receipt).map_err(|_| AuthError)?;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_err(|_| AuthError)?
            .as_secs();
        if claims.exp.saturating_add(self.validation.leeway) <= now {
            return Err(AuthError);
        }
        Ok(claims.principal())
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderValue, header};
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::{Value, json};

    use super::*;
    use crate::auth::Scope;

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
    const LATER: u64 = 4_000_000_000;

    fn signed(algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> HeaderMap {
        let token = encode(&Header::new(algorithm), claims, key).expect("signs");
        with(&token)
    }

    fn with(token: &str) -> HeaderMap {
        let value = HeaderValue::from_str(&format!("Bearer {token}")).expect("a header");
        HeaderMap::from_iter([(header::AUTHORIZATION, value)])
    }

    fn claims(more: Value) -> Value {
        let mut claims = json!({"sub": "ops", "exp": LATER, "scope": "executions:read openid"});
        let (Some(all), Value::Object(more)) = (claims.as_object_mut(), more) else {
            panic!("objects")
        };
        all.extend(more);
        claims
            .as_object_mut()
            .expect("an object")
            .retain(|_, value| !value.is_null());
        claims
    }

    #[tokio::test]
    async fn a_token_says_who_for_whom_and_what() {
        let tokens = JwtTokens::hs256(SECRET).expect("a key");
        let organization = OrganizationId::new();
        let claims = claims(json!({"organizations": [organization]}));
        let headers = signed(Algorithm::HS256, &EncodingKey::from_secret(SECRET), &claims);
        let expected = Principal {
            actor: "ops".to_owned(),
            organizations: vec![organization],
            scopes: vec![Scope::ExecutionsRead],
        };
        assert_eq!(tokens.authenticate(&headers).await, Ok(expected.clone()));
        let receipt = tokens.receipt(&headers).await.expect("a receipt");
        assert_eq!(tokens.recognize(&receipt).await, Ok(expected));
        assert_eq!(
            tokens.authenticate(&with(&receipt)).await,
            Err(AuthError),
            "a receipt is no token"
        );
    }

    #[tokio::test]
    async fn what_is_expired_forged_or_for_others_proves_nobody() {
        let tokens = JwtTokens::hs256(SECRET)
            .expect("a key")
            .issuer("us")
            .audience("docg");
        let own = EncodingKey::from_secret(SECRET);
        let good = json!({"iss": "us", "aud": "docg"});
        let headers = signed(Algorithm::HS256, &own, &claims(good.clone()));
        assert!(tokens.authenticate(&headers).await.is_ok());
        for more in [
            json!({"iss": "us", "aud": "docg", "exp": 1}),
            json!({"iss": "us", "aud": "docg", "exp": null}),
            json!({"iss": "us", "aud": "docg", "exp": "4000000000"}),
            json!({"iss": "us", "aud": "docg", "nbf": LATER}),
            json!({"iss": "us", "aud": "docg", "sub": null}),
            json!({"iss": "them", "aud": "docg"}),
            json!({"iss": "us", "aud": "others"}),
            json!({"iss": "us"}),
            json!({"aud": "docg"}),
        ] {
            let headers = signed(Algorithm::HS256, &own, &claims(more.clone()));
            assert_eq!(
                tokens.authenticate(&headers).await,
                Err(AuthError),
                "{more}"
            );
        }
        let other = EncodingKey::from_secret(b"another secret of more than 32 bytes");
        for headers in [
            signed(Algorithm::HS256, &other, &claims(good.clone())),
            signed(Algorithm::HS384, &own, &claims(good.clone())),
            // A token with the header {"alg":"none"} and without a signature.
            with(&format!("eyJhbGciOiJub25lIn0.{}.", "eyJzdWIiOiJhIn0")),
            with("a.b.c"),
            HeaderMap::new(),
        ] {
            assert_eq!(tokens.authenticate(&headers).await, Err(AuthError));
        }
        let stale = json!({"sub": "ops", "exp": 1}).to_string();
        assert_eq!(tokens.recognize(&stale).await, Err(AuthError));
    }

    /// The keys are the pair of RFC 8037, appendix A.1.
    #[tokio::test]
    async fn a_public_key_verifies_and_is_no_secret() {
        let public =
            hex::decode("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        let private =
            hex::decode("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
        let der = |prefix: &str, key: Vec<u8>| [hex::decode(prefix).expect("hex"), key].concat();
        let spki = der("302a300506032b6570032100", public.expect("hex"));
        let pkcs8 = der("302e020100300506032b657004220420", private.expect("hex"));
        let pem = format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            STANDARD.encode(spki)
        );
        let tokens = JwtTokens::ed25519(pem.as_bytes()).expect("a key");
        let good = signed(
            Algorithm::EdDSA,
            &EncodingKey::from_ed_der(&pkcs8),
            &claims(json!({})),
        );
        assert!(tokens.authenticate(&good).await.is_ok());
        let confused = EncodingKey::from_secret(pem.as_bytes());
        let forged = signed(Algorithm::HS256, &confused, &claims(json!({})));
        assert_eq!(tokens.authenticate(&forged).await, Err(AuthError));
    }

    #[test]
    fn keys_that_cannot_be_used_are_refused_at_once() {
        assert_eq!(
            JwtTokens::hs256(b"short").err(),
            Some(JwtKeyError::ShortSecret)
        );
        for made in [
            JwtTokens::rs256(b"x"),
            JwtTokens::es256(b"x"),
            JwtTokens::ed25519(b"x"),
        ] {
            assert!(matches!(made, Err(JwtKeyError::Unreadable(_))));
        }
    }
}
