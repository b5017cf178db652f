//! docg-http
