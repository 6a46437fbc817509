//! The envelope of an encrypted callback: AES-256-CBC over 16 random bytes, the length of the message (4 bytes, big
//! endian), the message and the appid.
//!
//! The initialisation vector is the first half of the key. The padding is PKCS#7 to blocks of 32 bytes, not 16: the
//! padding may be 1 to 32 bytes long.

use aes::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit, block_padding::NoPadding};
use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use domain::{app::AppId, secret::CallbackAesKey};
use zeroize::Zeroizing;

use super::CallbackCheckError;

/// The block size of the padding.
const BLOCK: usize = 32;
/// The block size of AES.
const AES_BLOCK: usize = 16;
/// The size of the random bytes and the length field.
const HEAD: usize = RANDOM + 4;
const RANDOM: usize = 16;

/// WeChat's console makes keys whose last character has unused bits that are not zero; strict decoders refuse such
/// keys.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a text is not an `EncodingAESKey`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an EncodingAESKey is the 43 letters and digits that WeChat's console shows")]
pub struct KeyFormat;

/// The AES key that an `EncodingAESKey` encodes.
#[derive(Clone)]
pub(super) struct AesKey(Zeroizing<[u8; 32]>);

impl AesKey {
    pub(super) fn parse(key: &CallbackAesKey) -> Result<Self, KeyFormat> {
        let bytes = Zeroizing::new(LENIENT.decode(key.expose()).map_err(|_| KeyFormat)?);
        let bytes: [u8; 32] = bytes.as_slice().try_into().map_err(|_| KeyFormat)?;
        Ok(Self(Zeroizing::new(bytes)))
    }

    /// Decrypts the message in the envelope, if the message is for `appid`.
    pub(super) fn open(
        &self,
        appid: &AppId,
        ciphertext: &str,
    ) -> Result<Vec<u8>, CallbackCheckError> {
        let mut bytes = LENIENT
            .decode(ciphertext.trim())
            .map_err(|_| CallbackCheckError::Cipher("the ciphertext is not base64"))?;
        if bytes.is_empty() || bytes.len() % AES_BLOCK != 0 {
            return Err(CallbackCheckError::Cipher(
                "the ciphertext does not consist of whole blocks",
            ));
        }
        let cipher = cbc::Decryptor::<aes::Aes256>::new(&(*self.0).into(), &self.iv().into());
        let plain = cipher
            .decrypt_padded::<NoPadding>(&mut bytes)
            .map_err(|_| {
                CallbackCheckError::Cipher("the ciphertext does not consist of whole blocks")
            })?;
        let plain = unpad(plain).ok_or(CallbackCheckError::Cipher("the padding is wrong"))?;
        let (message, owner) =
            split(plain).ok_or(CallbackCheckError::Cipher("the length is wrong"))?;
        if owner == appid.as_str().as_bytes() {
            Ok(message.to_vec())
        } else {
            Err(CallbackCheckError::OtherApp)
        }
    }

    /// Encrypts `message` into an envelope for `appid`. `random` must be fresh for each call.
    ///
    /// # Panics
    ///
    /// When `message` is longer than 4 GiB.
    pub(super) fn seal(&self, appid: &AppId, random: [u8; RANDOM], message: &[u8]) -> String {
        #[expect(clippy::expect_used, reason = "an answer to WeChat is short")]
        let length = u32::try_from(message.len()).expect("a message of less than 4 GiB");
        let mut bytes = Vec::with_capacity(HEAD + message.len() + appid.as_str().len() + BLOCK);
        bytes.extend_from_slice(&random);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(message);
        bytes.extend_from_slice(appid.as_str().as_bytes());
        pad(&mut bytes);
        let cipher = cbc::Encryptor::<aes::Aes256>::new(&(*self.0).into(), &self.iv().into());
        let length = bytes.len();
        #[expect(clippy::expect_used, reason = "the padding makes whole blocks")]
        cipher
            .encrypt_padded::<NoPadding>(&mut bytes, length)
            .expect("whole blocks");
        LENIENT.encode(bytes)
    }

    fn iv(&self) -> [u8; AES_BLOCK] {
        let mut iv = [0; AES_BLOCK];
        iv.copy_from_slice(&self.0[..AES_BLOCK]);
        iv
    }
}

impl std::fmt::Debug for AesKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AesKey(…)")
    }
}

fn pad(bytes: &mut Vec<u8>) {
    let missing = BLOCK - bytes.len() % BLOCK;
    #[expect(clippy::cast_possible_truncation, reason = "1 to 32")]
    bytes.resize(bytes.len() + missing, missing as u8);
}

fn unpad(bytes: &[u8]) -> Option<&[u8]> {
    let padding = *bytes.last()?;
    let length = usize::from(padding);
    let (message, tail) = bytes.split_at_checked(bytes.len().checked_sub(length)?)?;
    ((1..=BLOCK).contains(&length) && tail.iter().all(|byte| *byte == padding)).then_some(message)
}

/// Splits the message from the appid after the message.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = bytes.split_at_checked(HEAD)?;
    let length = u32::from_be_bytes(head[RANDOM..].try_into().ok()?);
    rest.split_at_checked(usize::try_from(length).ok()?)
}
