//! A TCP segment as read from a device: its header, bytes and virtio metadata in one.

use std::ops::Deref;

use super::packet::{Checksum, NotTcp, Offload, Packet};

/// A segment (or a super-packet of several) of the space `S`. Its header fields can be read directly.
#[derive(Debug)]
pub struct Segment<'a, S> {
    header: Packet<S>,
    offload: Offload,
    bytes: &'a mut [u8],
}

impl<S> Deref for Segment<'_, S> {
    type Target = Packet<S>;

    fn deref(&self) -> &Packet<S> {
        &self.header
    }
}

impl<'a, S> Segment<'a, S> {
    /// Parses `bytes`, an IP packet.
    ///
    /// # Errors
    /// If it is not a whole TCP packet.
    pub fn parse(offload: Offload, bytes: &'a mut [u8]) -> Result<Self, NotTcp> {
        let header = Packet::parse(bytes)?;
        Ok(Self { header, offload, bytes })
    }

    /// The whole packet.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// What the virtio header says about it.
    #[must_use]
    pub fn offload(&self) -> Offload {
        self.offload
    }

    /// Everything before the payload.
    #[must_use]
    pub fn headers(&self) -> &[u8] {
        &self.bytes[..self.header.payload.start]
    }

    /// The raw option area.
    #[must_use]
    pub fn options(&self) -> &[u8] {
        self.header.options(self.bytes)
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.bytes[self.header.payload.clone()]
    }

    /// The payload, to be changed in place.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.header.payload.clone()]
    }

    /// Whether it can be acted on: its checksum is correct, or whoever handed it over vouches for it.
    #[must_use]
    pub fn is_undamaged(&self) -> bool {
        self.offload.checksum != Checksum::Unverified || self.header.checksum_is_right(self.bytes)
    }
}
