//! Activation keys of the suite's customer, and the key pair by which the suite reads keys of version 2 that are meant for it.

use aws_lc_rs::{
    encoding::{AsDer as _, PublicKeyX509Der},
    rsa::{
        KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, OaepPublicEncryptingKey, PrivateDecryptingKey,
        PublicEncryptingKey,
    },
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use tieline_openapi::coordinator::{
    ActivationKeyEncryptedPayload, ActivationKeyV2, EncryptionParameters, GetActivationKeyParametersResponse,
    KeyContents, KeyVersion,
};

use crate::suite::{Stop, violation};

/// By its name in RFC 7518 section 4.3.
const ALGORITHM: &str = "RSA-OAEP-256";

/// A key pair of 2048 bits: enough for a text of a test.
pub(crate) struct Pair(PrivateDecryptingKey);

fn broken(what: &str) -> Stop {
    Stop::NoAnswer(format!("the suite's own key pair: {what}"))
}

impl Pair {
    /// A fresh one. It takes a while.
    pub(crate) async fn make() -> Result<Self, Stop> {
        let made = tokio::task::spawn_blocking(|| PrivateDecryptingKey::generate(KeySize::Rsa2048)).await;
        let made = made.map_err(|error| broken(&error.to_string()))?;
        made.map(Self).map_err(|_| broken("none could be made"))
    }

    /// What the suite tells those who encrypt to it.
    pub(crate) fn parameters(&self) -> Result<GetActivationKeyParametersResponse, Stop> {
        let der: PublicKeyX509Der<'_> = self.0.public_key().as_der().map_err(|_| broken("it cannot be written"))?;
        let public_key = pem::encode(&pem::Pem::new("PUBLIC KEY", der.as_ref()));
        let (algorithm, key_format) = (Some(ALGORITHM.to_owned()), Some("PKCS8".to_owned()));
        let encryption = Some(EncryptionParameters { public_key: Some(public_key), algorithm, key_format });
        Ok(GetActivationKeyParametersResponse { supported_versions: vec![1, 2], encryption })
    }

    /// What a key of version 2 says, if it was made for this pair.
    pub(crate) fn open(&self, key: &ActivationKeyV2) -> Option<ActivationKeyEncryptedPayload> {
        let sealed = STANDARD.decode(&key.encrypted_contents).ok()?;
        let private = OaepPrivateDecryptingKey::new(self.0.clone()).ok()?;
        let mut open = vec![0; private.min_output_size()];
        let open = private.decrypt(&OAEP_SHA256_MGF1SHA256, &sealed, &mut open, None).ok()?;
        serde_json::from_slice(open).ok()
    }
}

/// A key of version 2 for whoever holds the private half of what `parameters` tell.
pub(crate) fn sealed(
    contents: &KeyContents,
    uri: &str,
    parameters: &GetActivationKeyParametersResponse,
) -> Result<ActivationKeyV2, Stop> {
    let encryption = parameters.encryption.clone().unwrap_or_default();
    let text = encryption.public_key.ok_or_else(|| violation("activationKeyParameters has no public key"))?;
    let unusable = || violation("the public key of activationKeyParameters is no RSA key of 2048 to 8192 bits in PEM");
    let parsed = pem::parse(text).map_err(|_| unusable())?;
    let public = PublicEncryptingKey::from_der(parsed.contents()).map_err(|_| unusable())?;
    let public = OaepPublicEncryptingKey::new(public).map_err(|_| unusable())?;
    let payload = serde_json::to_vec(&contents.to_payload()).unwrap_or_default();
    let mut sealed = vec![0; public.ciphertext_size()];
    let sealed = public.encrypt(&OAEP_SHA256_MGF1SHA256, &payload, &mut sealed, None).map_err(|_| unusable())?;
    Ok(ActivationKeyV2 {
        version: KeyVersion,
        destination_environment_uri: uri.to_owned(),
        encrypted_contents: STANDARD.encode(sealed),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_opens_under_its_own_pair_only() {
        let (pair, other) = (Pair::make().await.unwrap(), Pair::make().await.unwrap());
        let contents = KeyContents {
            shared_connection_uuid: uuid::Uuid::nil(),
            bandwidth: 1_000.try_into().unwrap(),
            destination_account_id: "customer-1".to_owned(),
        };
        let key = sealed(&contents, "providers/a/environments/e", &pair.parameters().unwrap()).unwrap();
        assert_eq!(KeyContents::of_payload(&pair.open(&key).unwrap()), Ok(contents));
        assert!(other.open(&key).is_none());
    }
}
