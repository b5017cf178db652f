//! docg-store-memory
