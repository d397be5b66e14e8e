//! Vaults: secrets at rest.
