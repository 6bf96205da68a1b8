package config

// securityConfigs concern authentication, authorisation and encryption.
var securityConfigs = []Def{
	{
		Name: "allow.everyone.if.no.acl.found", Type: Bool, Default: "false",
		Doc: "Whether a resource without any ACL is open to everybody; acts from the version with ACLs on.",
	},
	{
		Name: "authorizer.class.name", Type: String,
		Doc: "Accepted for compatibility without effect: the authorizer is built in and acts from the version with ACLs on.",
	},
	{
		Name: "delegation.token.expiry.check.interval.ms", Type: Long, Default: "3600000", check: atLeast(1),
		Doc: "How often expired delegation tokens are looked for; acts from the version with delegation tokens on.",
	},
	{
		Name: "delegation.token.expiry.time.ms", Type: Long, Default: aDay, check: atLeast(1),
		Doc: "How long a delegation token is good for before it must be renewed; acts from the version with delegation tokens on.",
	},
	{
		Name: "delegation.token.max.lifetime.ms", Type: Long, Default: aWeek, check: atLeast(1),
		Doc: "How long a delegation token can be renewed; acts from the version with delegation tokens on.",
	},
	{
		Name: "delegation.token.secret.key", Type: Password, Null: true,
		Doc: "The secret that signs delegation tokens; acts from the version with delegation tokens on.",
	},
	{
		Name: "principal.builder.class", Type: Class, Default: "org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder", Scope: PerBroker,
		Doc: "Accepted for compatibility without effect: principal builders are Java classes.",
	},
	{
		Name: "sasl.client.callback.handler.class", Type: Class, Null: true,
		Doc: "Accepted for compatibility without effect: callback handlers are Java classes.",
	},
	{
		Name: "sasl.enabled.mechanisms", Type: List, Default: "GSSAPI", Scope: PerBroker,
		Doc: "The SASL mechanisms that clients may use; acts from the version with authentication on.",
	},
	{
		Name: "sasl.jaas.config", Type: Password, Null: true, Scope: PerBroker,
		Doc: "The login settings of a listener, in JAAS form; acts from the version with authentication on.",
	},
	{
		Name: "sasl.kerberos.kinit.cmd", Type: String, Default: "/usr/bin/kinit", Scope: PerBroker,
		Doc: "The path of kinit; acts from the version with Kerberos on.",
	},
	{
		Name: "sasl.kerberos.min.time.before.relogin", Type: Long, Default: "60000", Scope: PerBroker,
		Doc: "The shortest time between two logins to Kerberos; acts from the version with Kerberos on.",
	},
	{
		Name: "sasl.kerberos.principal.to.local.rules", Type: List, Default: "DEFAULT", Scope: PerBroker,
		Doc: "How Kerberos principals become user names; acts from the version with Kerberos on.",
	},
	{
		Name: "sasl.kerberos.service.name", Type: String, Null: true, Scope: PerBroker,
		Doc: "The service name of this cluster in Kerberos; acts from the version with Kerberos on.",
	},
	{
		Name: "sasl.kerberos.ticket.renew.jitter", Type: Double, Default: "0.05", Scope: PerBroker,
		Doc: "How much the renewal of Kerberos tickets varies at random; acts from the version with Kerberos on.",
	},
	{
		Name: "sasl.kerberos.ticket.renew.window.factor", Type: Double, Default: "0.8", Scope: PerBroker,
		Doc: "After which share of its life a Kerberos ticket is renewed; acts from the version with Kerberos on.",
	},
	{
		Name: "sasl.login.callback.handler.class", Type: Class, Null: true,
		Doc: "Accepted for compatibility without effect: callback handlers are Java classes.",
	},
	{
		Name: "sasl.login.class", Type: Class, Null: true,
		Doc: "Accepted for compatibility without effect: login classes are Java classes.",
	},
	{
		Name: "sasl.login.connect.timeout.ms", Type: Int, Null: true,
		Doc: "How long connecting to the login service may take; acts from the version with authentication on.",
	},
	{
		Name: "sasl.login.read.timeout.ms", Type: Int, Null: true,
		Doc: "How long the login service may take to answer; acts from the version with authentication on.",
	},
	{
		Name: "sasl.login.refresh.buffer.seconds", Type: Short, Default: "300", Scope: PerBroker,
		Doc: "How long before its end a credential is renewed at the latest; acts from the version with authentication on.",
	},
	{
		Name: "sasl.login.refresh.min.period.seconds", Type: Short, Default: "60", Scope: PerBroker,
		Doc: "The shortest time between two renewals of a credential; acts from the version with authentication on.",
	},
	{
		Name: "sasl.login.refresh.window.factor", Type: Double, Default: "0.8", Scope: PerBroker,
		Doc: "After which share of its life a credential is renewed; acts from the version with authentication on.",
	},
	{
		Name: "sasl.login.refresh.window.jitter", Type: Double, Default: "0.05", Scope: PerBroker,
		Doc: "How much the renewal of credentials varies at random; acts from the version with authentication on.",
	},
	{
		Name: "sasl.login.retry.backoff.max.ms", Type: Long, Default: "10000",
		Doc: "The longest wait between two tries to log in; acts from the version with authentication on.",
	},
	{
		Name: "sasl.login.retry.backoff.ms", Type: Long, Default: "100",
		Doc: "The first wait between two tries to log in; acts from the version with authentication on.",
	},
	{
		Name: "sasl.mechanism.controller.protocol", Type: String, Default: "GSSAPI",
		Doc: "The SASL mechanism between nodes and controllers; here nodes prove themselves with the cluster's token.",
	},
	{
		Name: "sasl.mechanism.inter.broker.protocol", Type: String, Default: "GSSAPI", Scope: PerBroker,
		Doc: "The SASL mechanism between nodes; here nodes prove themselves with the cluster's token.",
	},
	{
		Name: "sasl.oauthbearer.assertion.algorithm", Type: String, Default: "RS256",
		Doc: "The algorithm that signs assertions for OAuth; acts from the version with authentication on.",
	},
	{
		Name: "sasl.oauthbearer.assertion.claim.aud", Type: String, Null: true,
		Doc: "The audience in assertions for OAuth; acts from the version with authentication on.",
	},
	{
		Name: "sasl.oauthbearer.assertion.claim.exp.seconds", Type: Int, Default: "300", check: between(0, 86400),
		Doc: "How long assertions for OAuth are good for; acts from the version with authentication on.",
	},
	{
		Name: "sasl.oauthbearer.assertion.claim.iss", Type: String, Null: true,
		Doc: "The issuer in assertions for OAuth; acts from the version with authentication on.",
	},
	{
		Name: "sasl.oauthbearer.assertion.claim.jti.include", Type: Bool, Default: "false",
		Doc: "Whether assertions for OAuth carry an id of their own; acts from the version with authentication on.",
	},
	{
		Name: "sasl.oauthbearer.assertion.claim.nbf.seconds", Type: Int, Default: "60", check: between(0, 3600),
		Doc: "How far back assertions for OAuth begin to be good; acts from the version with authentication on.",
	},
	{
		Name: "sasl.oauthbearer.assertion.claim.sub", Type: String, Null: true,
		Doc: "The subject in assertions for OAuth; acts from the version with authentication on.",
	},
	{
		Name: "sasl.oauthbearer.assertion.file", Type: String, Null: true,
		Doc: "The file with a ready assertion for OAuth; acts from the version with authentication on.",
	},
	{
		Name: "sasl.oauthbearer.assertion.private.key.file", Type: String, Null: true,
		Doc: "The file with the key that signs assertions for OAuth; acts from the version with authentication on.",
	},
	{
		Name: "sasl.oauthbearer.assertion.private.key.passphrase", Type: Password, Null: true,
		Doc: "The passphrase of the key that signs assertions for OAuth; acts from the version with authentication on.",
	},
	{
		Name: "sasl.oauthbearer.assertion.template.file", Type: String, Null: true,
		Doc: "The file with headers and claims for assertions for OAuth; acts from the version with authentication on.",
	},
	{
		Name: "sasl.oauthbearer.client.credentials.client.id", Type: String, Null: true,
		Doc: "The client id for the credentials grant of OAuth; acts from the version with authentication on.",
	},
	{
		Name: "sasl.oauthbearer.client.credentials.client.secret", Type: Password, Null: true,
		Doc: "The client secret for the credentials grant of OAuth; acts from the version with authentication on.",
	},
	{
		Name: "sasl.oauthbearer.clock.skew.seconds", Type: Int, Default: "30",
		Doc: "How far clocks may differ when tokens of OAuth are checked; acts from the version with authentication on.",
	},
	{
		Name: "sasl.oauthbearer.expected.audience", Type: List,
		Doc: "The audiences that tokens of OAuth must name; acts from the version with authentication on.",
	},
	{
		Name: "sasl.oauthbearer.expected.issuer", Type: String, Null: true,
		Doc: "The issuer that tokens of OAuth must name; acts from the version with authentication on.",
	},
	{
		Name: "sasl.oauthbearer.jwks.endpoint.refresh.ms", Type: Long, Default: "3600000",
		Doc: "How often the keys of the OAuth provider are read again; acts from the version with authentication on.",
	},
	{
		Name: "sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms", Type: Long, Default: "10000",
		Doc: "The longest wait between two tries to read the OAuth provider's keys; acts from the version with authentication on.",
	},
	{
		Name: "sasl.oauthbearer.jwks.endpoint.retry.backoff.ms", Type: Long, Default: "100",
		Doc: "The first wait between two tries to read the OAuth provider's keys; acts from the version with authentication on.",
	},
	{
		Name: "sasl.oauthbearer.jwks.endpoint.url", Type: String, Null: true,
		Doc: "Where the keys of the OAuth provider are; acts from the version with authentication on.",
	},
	{
		Name: "sasl.oauthbearer.jwt.retriever.class", Type: Class, Default: "org.apache.kafka.common.security.oauthbearer.DefaultJwtRetriever",
		Doc: "Accepted for compatibility without effect: token retrievers are Java classes.",
	},
	{
		Name: "sasl.oauthbearer.jwt.validator.class", Type: Class, Default: "org.apache.kafka.common.security.oauthbearer.DefaultJwtValidator",
		Doc: "Accepted for compatibility without effect: token validators are Java classes.",
	},
	{
		Name: "sasl.oauthbearer.scope", Type: String, Null: true,
		Doc: "The scope that is asked for in OAuth; acts from the version with authentication on.",
	},
	{
		Name: "sasl.oauthbearer.scope.claim.name", Type: String, Default: "scope",
		Doc: "The claim that holds the scope in tokens of OAuth; acts from the version with authentication on.",
	},
	{
		Name: "sasl.oauthbearer.sub.claim.name", Type: String, Default: "sub",
		Doc: "The claim that holds the user in tokens of OAuth; acts from the version with authentication on.",
	},
	{
		Name: "sasl.oauthbearer.token.endpoint.url", Type: String, Null: true,
		Doc: "Where tokens of OAuth are asked for; acts from the version with authentication on.",
	},
	{
		Name: "sasl.server.callback.handler.class", Type: Class, Null: true,
		Doc: "Accepted for compatibility without effect: callback handlers are Java classes.",
	},
	{
		Name: "sasl.server.max.receive.size", Type: Int, Default: "524288",
		Doc: "The largest message that is taken while a client authenticates; acts from the version with authentication on.",
	},
	{
		Name: "security.inter.broker.protocol", Type: String, Default: "PLAINTEXT", check: oneOf("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"),
		Doc: "The security protocol between nodes; acts from the version with TLS on.",
	},
	{
		Name: "security.providers", Type: String, Null: true,
		Doc: "Accepted for compatibility without effect: security providers are Java classes.",
	},
	{
		Name: "ssl.allow.dn.changes", Type: Bool, Default: "false",
		Doc: "Whether a new certificate may have another distinguished name; acts from the version with TLS on.",
	},
	{
		Name: "ssl.allow.san.changes", Type: Bool, Default: "false",
		Doc: "Whether a new certificate may have other alternative names; acts from the version with TLS on.",
	},
	{
		Name: "ssl.cipher.suites", Type: List, Scope: PerBroker,
		Doc: "The cipher suites that may be used, all by default; acts from the version with TLS on.",
	},
	{
		Name: "ssl.client.auth", Type: String, Default: "none", Scope: PerBroker, check: oneOf("required", "requested", "none"),
		Doc: "Whether clients are asked for a certificate: required, requested or none; acts from the version with TLS on.",
	},
	{
		Name: "ssl.enabled.protocols", Type: List, Default: "TLSv1.2,TLSv1.3", Scope: PerBroker,
		Doc: "The versions of TLS that may be used; acts from the version with TLS on.",
	},
	{
		Name: "ssl.endpoint.identification.algorithm", Type: String, Default: "https", Scope: PerBroker,
		Doc: "How the name of a peer is checked against its certificate; acts from the version with TLS on.",
	},
	{
		Name: "ssl.engine.factory.class", Type: Class, Null: true, Scope: PerBroker,
		Doc: "Accepted for compatibility without effect: TLS engines are Java classes.",
	},
	{
		Name: "ssl.key.password", Type: Password, Null: true, Scope: PerBroker,
		Doc: "The password of the private key; acts from the version with TLS on.",
	},
	{
		Name: "ssl.keymanager.algorithm", Type: String, Default: "SunX509", Scope: PerBroker,
		Doc: "Accepted for compatibility without effect: key managers belong to Java.",
	},
	{
		Name: "ssl.keystore.certificate.chain", Type: Password, Null: true, Scope: PerBroker,
		Doc: "The certificate chain itself, as PEM; acts from the version with TLS on.",
	},
	{
		Name: "ssl.keystore.key", Type: Password, Null: true, Scope: PerBroker,
		Doc: "The private key itself, as PEM; acts from the version with TLS on.",
	},
	{
		Name: "ssl.keystore.location", Type: String, Null: true, Scope: PerBroker,
		Doc: "The file with the key and its certificates; acts from the version with TLS on.",
	},
	{
		Name: "ssl.keystore.password", Type: Password, Null: true, Scope: PerBroker,
		Doc: "The password of the file with the key; acts from the version with TLS on.",
	},
	{
		Name: "ssl.keystore.type", Type: String, Default: "JKS", Scope: PerBroker,
		Doc: "The form of the file with the key; acts from the version with TLS on.",
	},
	{
		Name: "ssl.principal.mapping.rules", Type: String, Default: "DEFAULT",
		Doc: "How names in certificates become user names; acts from the version with TLS on.",
	},
	{
		Name: "ssl.protocol", Type: String, Default: "TLSv1.3", Scope: PerBroker,
		Doc: "The version of TLS that is preferred; acts from the version with TLS on.",
	},
	{
		Name: "ssl.provider", Type: String, Null: true, Scope: PerBroker,
		Doc: "Accepted for compatibility without effect: TLS providers belong to Java.",
	},
	{
		Name: "ssl.secure.random.implementation", Type: String, Null: true, Scope: PerBroker,
		Doc: "Accepted for compatibility without effect: the operating system gives random numbers.",
	},
	{
		Name: "ssl.trustmanager.algorithm", Type: String, Default: "PKIX", Scope: PerBroker,
		Doc: "Accepted for compatibility without effect: trust managers belong to Java.",
	},
	{
		Name: "ssl.truststore.certificates", Type: Password, Null: true, Scope: PerBroker,
		Doc: "The trusted certificates themselves, as PEM; acts from the version with TLS on.",
	},
	{
		Name: "ssl.truststore.location", Type: String, Null: true, Scope: PerBroker,
		Doc: "The file with the trusted certificates; acts from the version with TLS on.",
	},
	{
		Name: "ssl.truststore.password", Type: Password, Null: true, Scope: PerBroker,
		Doc: "The password of the file with the trusted certificates; acts from the version with TLS on.",
	},
	{
		Name: "ssl.truststore.type", Type: String, Default: "JKS", Scope: PerBroker,
		Doc: "The form of the file with the trusted certificates; acts from the version with TLS on.",
	},
	{
		Name: "super.users", Type: String,
		Doc: "Users that may do everything, as type:name pairs between semicolons; acts from the version with ACLs on.",
	},
}
