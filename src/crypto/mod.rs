//! Cryptographic backends for the [`tcpcrypt::Provider`] trait.

#[cfg(feature = "aws-lc")]
pub mod aws_lc;

/// The backend to use: the fastest one that was built in.
#[must_use]
pub fn provider() -> &'static dyn tcpcrypt::Provider {
    #[cfg(feature = "aws-lc")]
    return &aws_lc::PROVIDER;
    #[cfg(not(feature = "aws-lc"))]
    &tcpcrypt::rust_crypto::PROVIDER
}
