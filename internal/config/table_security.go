package config

// securityConfigs concern authentication, authorisation and encryption.
var securityConfigs = []Def{
	{
		Name: "allow.everyone.if.no.acl.found", Type: Bool, Default: "false", harmless: "true",
		Doc: "Whether every user may use a resource without ACLs.", Needs: "ACLs",
	},
	{
		Name: "authorizer.class.name", Type: String,
		Needs: "ACLs", Doc: "The class that decides who may do what; the authorizer will be built in.",
	},
	{
		Name: "delegation.token.expiry.check.interval.ms", Type: Long, Default: "3600000", check: atLeast(1),
		Doc: "How often the node looks for expired delegation tokens.", Needs: "delegation tokens",
	},
	{
		Name: "delegation.token.expiry.time.ms", Type: Long, Default: aDay, check: atLeast(1),
		Doc: "How long a delegation token is valid before it must be renewed.", Needs: "delegation tokens",
	},
	{
		Name: "delegation.token.max.lifetime.ms", Type: Long, Default: aWeek, check: atLeast(1),
		Doc: "How long a delegation token can be renewed.", Needs: "delegation tokens",
	},
	{
		Name: "delegation.token.secret.key", Type: Password, Null: true,
		Doc: "The secret that signs delegation tokens.", Needs: "delegation tokens",
	},
	{
		Name: "principal.builder.class", Type: Class, Default: "org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder", Scope: PerBroker,
		Needs: "authentication", Doc: "Principal builders are Java classes.",
	},
	{
		Name: "sasl.client.callback.handler.class", Type: Class, Null: true,
		Needs: "authentication", Doc: "Callback handlers are Java classes.",
	},
	{
		Name: "sasl.enabled.mechanisms", Type: List, Default: "GSSAPI", Scope: PerBroker,
		Doc: "The SASL mechanisms that clients may use.", Needs: "authentication",
	},
	{
		Name: "sasl.jaas.config", Type: Password, Null: true, Scope: PerBroker,
		Doc: "The login settings of a listener, in JAAS form.", Needs: "authentication",
	},
	{
		Name: "sasl.kerberos.kinit.cmd", Type: String, Default: "/usr/bin/kinit", Scope: PerBroker,
		Doc: "The path of kinit.", Needs: "Kerberos",
	},
	{
		Name: "sasl.kerberos.min.time.before.relogin", Type: Long, Default: "60000", Scope: PerBroker,
		Doc: "The shortest time between two logins to Kerberos.", Needs: "Kerberos",
	},
	{
		Name: "sasl.kerberos.principal.to.local.rules", Type: List, Default: "DEFAULT", Scope: PerBroker,
		Doc: "How Kerberos principals become user names.", Needs: "Kerberos",
	},
	{
		Name: "sasl.kerberos.service.name", Type: String, Null: true, Scope: PerBroker,
		Doc: "The service name of this cluster in Kerberos.", Needs: "Kerberos",
	},
	{
		Name: "sasl.kerberos.ticket.renew.jitter", Type: Double, Default: "0.05", Scope: PerBroker,
		Doc: "How much the renewal of Kerberos tickets varies at random.", Needs: "Kerberos",
	},
	{
		Name: "sasl.kerberos.ticket.renew.window.factor", Type: Double, Default: "0.8", Scope: PerBroker,
		Doc: "The fraction of its lifetime after which a Kerberos ticket is renewed.", Needs: "Kerberos",
	},
	{
		Name: "sasl.login.callback.handler.class", Type: Class, Null: true,
		Needs: "authentication", Doc: "Callback handlers are Java classes.",
	},
	{
		Name: "sasl.login.class", Type: Class, Null: true,
		Needs: "authentication", Doc: "Login classes are Java classes.",
	},
	{
		Name: "sasl.login.connect.timeout.ms", Type: Int, Null: true,
		Doc: "How long connecting to the login service may take.", Needs: "authentication",
	},
	{
		Name: "sasl.login.read.timeout.ms", Type: Int, Null: true,
		Doc: "How long the login service may take to answer.", Needs: "authentication",
	},
	{
		Name: "sasl.login.refresh.buffer.seconds", Type: Short, Default: "300", Scope: PerBroker,
		Doc: "How long before its end a credential is renewed at the latest.", Needs: "authentication",
	},
	{
		Name: "sasl.login.refresh.min.period.seconds", Type: Short, Default: "60", Scope: PerBroker,
		Doc: "The shortest time between two renewals of a credential.", Needs: "authentication",
	},
	{
		Name: "sasl.login.refresh.window.factor", Type: Double, Default: "0.8", Scope: PerBroker,
		Doc: "The fraction of its lifetime after which a credential is renewed.", Needs: "authentication",
	},
	{
		Name: "sasl.login.refresh.window.jitter", Type: Double, Default: "0.05", Scope: PerBroker,
		Doc: "How much the renewal of credentials varies at random.", Needs: "authentication",
	},
	{
		Name: "sasl.login.retry.backoff.max.ms", Type: Long, Default: "10000",
		Doc: "The longest wait between two tries to log in.", Needs: "authentication",
	},
	{
		Name: "sasl.login.retry.backoff.ms", Type: Long, Default: "100",
		Doc: "The first wait between two tries to log in.", Needs: "authentication",
	},
	{
		Name: "sasl.mechanism.controller.protocol", Type: String, Default: "GSSAPI",
		Needs: "authentication", Doc: "The SASL mechanism between nodes and controllers; here nodes prove themselves with the cluster's token.",
	},
	{
		Name: "sasl.mechanism.inter.broker.protocol", Type: String, Default: "GSSAPI", Scope: PerBroker,
		Needs: "authentication", Doc: "The SASL mechanism between nodes; here nodes prove themselves with the cluster's token.",
	},
	{
		Name: "sasl.oauthbearer.assertion.algorithm", Type: String, Default: "RS256",
		Doc: "The algorithm that signs assertions for OAuth.", Needs: "authentication",
	},
	{
		Name: "sasl.oauthbearer.assertion.claim.aud", Type: String, Null: true,
		Doc: "The audience in assertions for OAuth.", Needs: "authentication",
	},
	{
		Name: "sasl.oauthbearer.assertion.claim.exp.seconds", Type: Int, Default: "300", check: between(0, 86400),
		Doc: "How long assertions for OAuth are valid.", Needs: "authentication",
	},
	{
		Name: "sasl.oauthbearer.assertion.claim.iss", Type: String, Null: true,
		Doc: "The issuer in assertions for OAuth.", Needs: "authentication",
	},
	{
		Name: "sasl.oauthbearer.assertion.claim.jti.include", Type: Bool, Default: "false",
		Doc: "Whether assertions for OAuth carry an id of their own.", Needs: "authentication",
	},
	{
		Name: "sasl.oauthbearer.assertion.claim.nbf.seconds", Type: Int, Default: "60", check: between(0, 3600),
		Doc: "How long before it is made an assertion for OAuth begins to be valid.", Needs: "authentication",
	},
	{
		Name: "sasl.oauthbearer.assertion.claim.sub", Type: String, Null: true,
		Doc: "The subject in assertions for OAuth.", Needs: "authentication",
	},
	{
		Name: "sasl.oauthbearer.assertion.file", Type: String, Null: true,
		Doc: "The file with a ready assertion for OAuth.", Needs: "authentication",
	},
	{
		Name: "sasl.oauthbearer.assertion.private.key.file", Type: String, Null: true,
		Doc: "The file with the key that signs assertions for OAuth.", Needs: "authentication",
	},
	{
		Name: "sasl.oauthbearer.assertion.private.key.passphrase", Type: Password, Null: true,
		Doc: "The passphrase of the key that signs assertions for OAuth.", Needs: "authentication",
	},
	{
		Name: "sasl.oauthbearer.assertion.template.file", Type: String, Null: true,
		Doc: "The file with headers and claims for assertions for OAuth.", Needs: "authentication",
	},
	{
		Name: "sasl.oauthbearer.client.credentials.client.id", Type: String, Null: true,
		Doc: "The client id for the credentials grant of OAuth.", Needs: "authentication",
	},
	{
		Name: "sasl.oauthbearer.client.credentials.client.secret", Type: Password, Null: true,
		Doc: "The client secret for the credentials grant of OAuth.", Needs: "authentication",
	},
	{
		Name: "sasl.oauthbearer.clock.skew.seconds", Type: Int, Default: "30",
		Doc: "How far clocks may differ when tokens of OAuth are checked.", Needs: "authentication",
	},
	{
		Name: "sasl.oauthbearer.expected.audience", Type: List,
		Doc: "The audiences that tokens of OAuth must name.", Needs: "authentication",
	},
	{
		Name: "sasl.oauthbearer.expected.issuer", Type: String, Null: true,
		Doc: "The issuer that tokens of OAuth must name.", Needs: "authentication",
	},
	{
		Name: "sasl.oauthbearer.jwks.endpoint.refresh.ms", Type: Long, Default: "3600000",
		Doc: "How often the keys of the OAuth provider are read again.", Needs: "authentication",
	},
	{
		Name: "sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms", Type: Long, Default: "10000",
		Doc: "The longest wait between two tries to read the OAuth provider's keys.", Needs: "authentication",
	},
	{
		Name: "sasl.oauthbearer.jwks.endpoint.retry.backoff.ms", Type: Long, Default: "100",
		Doc: "The first wait between two tries to read the OAuth provider's keys.", Needs: "authentication",
	},
	{
		Name: "sasl.oauthbearer.jwks.endpoint.url", Type: String, Null: true,
		Doc: "The URL of the keys of the OAuth provider.", Needs: "authentication",
	},
	{
		Name: "sasl.oauthbearer.jwt.retriever.class", Type: Class, Default: "org.apache.kafka.common.security.oauthbearer.DefaultJwtRetriever",
		Needs: "authentication", Doc: "Token retrievers are Java classes.",
	},
	{
		Name: "sasl.oauthbearer.jwt.validator.class", Type: Class, Default: "org.apache.kafka.common.security.oauthbearer.DefaultJwtValidator",
		Needs: "authentication", Doc: "Token validators are Java classes.",
	},
	{
		Name: "sasl.oauthbearer.scope", Type: String, Null: true,
		Doc: "The scope that is requested in OAuth.", Needs: "authentication",
	},
	{
		Name: "sasl.oauthbearer.scope.claim.name", Type: String, Default: "scope",
		Doc: "The claim that holds the scope in tokens of OAuth.", Needs: "authentication",
	},
	{
		Name: "sasl.oauthbearer.sub.claim.name", Type: String, Default: "sub",
		Doc: "The claim that holds the user in tokens of OAuth.", Needs: "authentication",
	},
	{
		Name: "sasl.oauthbearer.token.endpoint.url", Type: String, Null: true,
		Doc: "The URL at which tokens of OAuth are requested.", Needs: "authentication",
	},
	{
		Name: "sasl.server.callback.handler.class", Type: Class, Null: true,
		Needs: "authentication", Doc: "Callback handlers are Java classes.",
	},
	{
		Name: "sasl.server.max.receive.size", Type: Int, Default: "524288",
		Doc: "The largest message that is accepted while a client authenticates.", Needs: "authentication",
	},
	{
		Name: "security.inter.broker.protocol", Type: String, Default: "PLAINTEXT", check: oneOf("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"),
		Doc: "The security protocol between nodes.", Needs: "TLS",
	},
	{
		Name: "security.providers", Type: String, Null: true,
		Needs: "TLS", Doc: "Security providers are Java classes.",
	},
	{
		Name: "ssl.allow.dn.changes", Type: Bool, Default: "false",
		Doc: "Whether a new certificate may have another distinguished name.", Needs: "TLS",
	},
	{
		Name: "ssl.allow.san.changes", Type: Bool, Default: "false",
		Doc: "Whether a new certificate may have other alternative names.", Needs: "TLS",
	},
	{
		Name: "ssl.cipher.suites", Type: List, Scope: PerBroker,
		Doc: "The cipher suites that may be used, all by default.", Needs: "TLS",
	},
	{
		Name: "ssl.client.auth", Type: String, Default: "none", Scope: PerBroker, check: oneOf("required", "requested", "none"),
		Doc: "Whether clients are asked for a certificate: required, requested or none.", Needs: "TLS",
	},
	{
		Name: "ssl.enabled.protocols", Type: List, Default: "TLSv1.2,TLSv1.3", Scope: PerBroker,
		Doc: "The versions of TLS that may be used.", Needs: "TLS",
	},
	{
		Name: "ssl.endpoint.identification.algorithm", Type: String, Default: "https", Scope: PerBroker,
		Doc: "How the name of a peer is checked against its certificate.", Needs: "TLS",
	},
	{
		Name: "ssl.engine.factory.class", Type: Class, Null: true, Scope: PerBroker,
		Needs: "TLS", Doc: "TLS engines are Java classes.",
	},
	{
		Name: "ssl.key.password", Type: Password, Null: true, Scope: PerBroker,
		Doc: "The password of the private key.", Needs: "TLS",
	},
	{
		Name: "ssl.keymanager.algorithm", Type: String, Default: "SunX509", Scope: PerBroker,
		Needs: "TLS", Doc: "Key managers belong to Java.",
	},
	{
		Name: "ssl.keystore.certificate.chain", Type: Password, Null: true, Scope: PerBroker,
		Doc: "The certificate chain itself, as PEM.", Needs: "TLS",
	},
	{
		Name: "ssl.keystore.key", Type: Password, Null: true, Scope: PerBroker,
		Doc: "The private key itself, as PEM.", Needs: "TLS",
	},
	{
		Name: "ssl.keystore.location", Type: String, Null: true, Scope: PerBroker,
		Doc: "The file with the key and its certificates.", Needs: "TLS",
	},
	{
		Name: "ssl.keystore.password", Type: Password, Null: true, Scope: PerBroker,
		Doc: "The password of the file with the key.", Needs: "TLS",
	},
	{
		Name: "ssl.keystore.type", Type: String, Default: "JKS", Scope: PerBroker,
		Doc: "The form of the file with the key.", Needs: "TLS",
	},
	{
		Name: "ssl.principal.mapping.rules", Type: String, Default: "DEFAULT",
		Doc: "How names in certificates become user names.", Needs: "TLS",
	},
	{
		Name: "ssl.protocol", Type: String, Default: "TLSv1.3", Scope: PerBroker,
		Doc: "The version of TLS that is preferred.", Needs: "TLS",
	},
	{
		Name: "ssl.provider", Type: String, Null: true, Scope: PerBroker,
		Needs: "TLS", Doc: "TLS providers belong to Java.",
	},
	{
		Name: "ssl.secure.random.implementation", Type: String, Null: true, Scope: PerBroker,
		Needs: "TLS", Doc: "The operating system gives random numbers.",
	},
	{
		Name: "ssl.trustmanager.algorithm", Type: String, Default: "PKIX", Scope: PerBroker,
		Needs: "TLS", Doc: "Trust managers belong to Java.",
	},
	{
		Name: "ssl.truststore.certificates", Type: Password, Null: true, Scope: PerBroker,
		Doc: "The trusted certificates themselves, as PEM.", Needs: "TLS",
	},
	{
		Name: "ssl.truststore.location", Type: String, Null: true, Scope: PerBroker,
		Doc: "The file with the trusted certificates.", Needs: "TLS",
	},
	{
		Name: "ssl.truststore.password", Type: Password, Null: true, Scope: PerBroker,
		Doc: "The password of the file with the trusted certificates.", Needs: "TLS",
	},
	{
		Name: "ssl.truststore.type", Type: String, Default: "JKS", Scope: PerBroker,
		Doc: "The form of the file with the trusted certificates.", Needs: "TLS",
	},
	{
		Name: "super.users", Type: String,
		Doc: "The users that may do everything, as type:name pairs separated by semicolons.", Needs: "ACLs",
	},
}
