//! The choices around the queue.

use super::{Kind, Raw, quoted};

words! {
    /// Which queue stands between ingest and store.
    QueueBackend = "\"embedded\" or \"kafka\"" {
        /// In this process, on its disk.
        Embedded = "embedded",
        /// A topic of Apache Kafka.
        Kafka = "kafka",
    }
}

words! {
    /// The least that an acknowledged append must survive.
    DurabilitySetting = "\"process\", \"disk\" or \"replicated\"" {
        /// Death of a process.
        Process = "process",
        /// Power loss.
        Disk = "disk",
        /// Loss of a machine.
        Replicated = "replicated",
    }
}

words! {
    /// How the brokers are spoken to.
    SecurityProtocol = "\"plaintext\", \"ssl\", \"sasl_plaintext\" or \"sasl_ssl\"" {
        /// As it is.
        Plaintext = "plaintext",
        /// Over TLS.
        Ssl = "ssl",
        /// With a login.
        SaslPlaintext = "sasl_plaintext",
        /// With a login, over TLS.
        SaslSsl = "sasl_ssl",
    }
}

impl SecurityProtocol {
    /// Whether TLS is spoken.
    #[must_use]
    pub fn tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    /// Whether there is a login.
    #[must_use]
    pub fn sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }

    /// The word, as librdkafka has it too.
    #[cfg(feature = "kafka")]
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        }
    }
}
