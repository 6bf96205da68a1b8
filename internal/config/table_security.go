package config

// securityConfigs concern authentication, authorisation and encryption.
var securityConfigs = []Def{
	{
		Name: "allow.everyone.if.no.acl.found", Type: Bool, Default: "false",
		Doc: "Whether every user may use a resource without ACLs.",
	},
	{
		Name: "authorizer.class.name", Type: String, check: oneOf("", StandardAuthorizer),
		Doc: "Whether ACLs decide who may do what: " + StandardAuthorizer + ", whose rules are built in, or empty, with which every client may do everything. It needs super.users.",
	},
	{
		Name: "delegation.token.expiry.check.interval.ms", Type: Long, Default: "3600000", check: atLeast(1),
		Doc: "How often the active controller removes delegation tokens that have ended.",
	},
	{
		Name: "delegation.token.expiry.time.ms", Type: Long, Default: aDay, check: atLeast(1),
		Doc: "How long a delegation token is valid before it must be renewed.",
	},
	{
		Name: "delegation.token.max.lifetime.ms", Type: Long, Default: aWeek, check: atLeast(1),
		Doc: "How long a delegation token can be renewed.",
	},
	{
		Name: "delegation.token.secret.key", Type: Password, Null: true,
		Doc: "The secret that signs delegation tokens; without one there are none. All nodes must have the same, long and random: who knows it can log in with every token. Keep it in a file that only the node can read, or in the environment. Another secret ends all tokens.",
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
		Name: "sasl.enabled.mechanisms", Type: List, Default: "GSSAPI", Scope: PerBroker, check: mechanismList,
		Doc: "The SASL mechanisms that clients of a listener may use: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and OAUTHBEARER. Without a value they are SCRAM-SHA-256 and SCRAM-SHA-512, since GSSAPI needs Kerberos, which is not served.",
	},
	{
		Name: "sasl.jaas.config", Type: Password, Null: true, Scope: PerBroker,
		Doc: "The login module of a mechanism of a listener, in JAAS form: listener.name.NAME.plain.sasl.jaas.config has the users of PLAIN, as user_NAME=\"PASSWORD\"; without it they are the users of the cluster. Keep it in a file that only the node can read.",
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
		Name: "sasl.oauthbearer.clock.skew.seconds", Type: Int, Default: "30", check: between(0, 3600),
		Doc: "How far clocks may differ when tokens of OAuth are checked.",
	},
	{
		Name: "sasl.oauthbearer.expected.audience", Type: List,
		Doc: "The audiences, one of which tokens of OAuth must name. OAUTHBEARER needs it.",
	},
	{
		Name: "sasl.oauthbearer.expected.issuer", Type: String, Null: true,
		Doc: "The issuer that tokens of OAuth must name. OAUTHBEARER needs it.",
	},
	{
		Name: "sasl.oauthbearer.jwks.endpoint.refresh.ms", Type: Long, Default: "3600000", check: atLeast(100),
		Doc: "How often the keys of the OAuth provider are read again.",
	},
	{
		Name: "sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms", Type: Long, Default: "10000", check: atLeast(100),
		Doc: "The longest wait between two tries to read the OAuth provider's keys.",
	},
	{
		Name: "sasl.oauthbearer.jwks.endpoint.retry.backoff.ms", Type: Long, Default: "100", check: atLeast(100),
		Doc: "The first wait between two tries to read the OAuth provider's keys.",
	},
	{
		Name: "sasl.oauthbearer.jwks.endpoint.url", Type: String, Null: true,
		Doc: "The URL of the keys of the OAuth provider: https:// or file:/.",
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
		Doc: "The claim that holds the scope in tokens of OAuth.",
	},
	{
		Name: "sasl.oauthbearer.sub.claim.name", Type: String, Default: "sub",
		Doc: "The claim that holds the user in tokens of OAuth.",
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
		Name: "sasl.server.max.receive.size", Type: Int, Default: "524288", check: between(1024, 10<<20),
		Doc: "The largest message that is accepted while a client authenticates.",
	},
	{
		Name: "security.inter.broker.protocol", Type: String, Default: "PLAINTEXT", check: oneOf("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"),
		Doc: "The security protocol between nodes: they talk to each other by the listener that has the name of the protocol.",
	},
	{
		Name: "security.providers", Type: String, Null: true,
		Needless: true, Doc: "Has no effect here: security providers are Java classes.",
	},
	{
		Name: "ssl.allow.dn.changes", Type: Bool, Default: "false",
		Needless: true, Doc: "Has no effect here: new certificates may have another distinguished name, and the log shows it.",
	},
	{
		Name: "ssl.allow.san.changes", Type: Bool, Default: "false",
		Needless: true, Doc: "Has no effect here: new certificates may have other names, and the log warns of those that do not have the name that clients are told.",
	},
	{
		Name: "ssl.cipher.suites", Type: List, Scope: PerBroker,
		Doc: "The cipher suites that may be used, by their standard names; all that are safe by default. Those of TLS 1.3 are served together: name all of them, or none, which leaves TLS 1.3 out.",
	},
	{
		Name: "ssl.client.auth", Type: String, Default: "none", Scope: PerBroker, check: oneOf("required", "requested", "none"),
		Doc: "Whether clients are asked for a certificate: required, requested (a client may have none, but no bad one) or none. For a listener with SASL_SSL it counts only with the prefix of that listener.",
	},
	{
		Name: "ssl.enabled.protocols", Type: List, Default: "TLSv1.2,TLSv1.3", Scope: PerBroker, check: tlsProtocols,
		Doc: "The versions of TLS that may be used, TLSv1.2 and TLSv1.3.",
	},
	{
		Name: "ssl.endpoint.identification.algorithm", Type: String, Default: "https", Scope: PerBroker, check: oneOf("https", "HTTPS", ""),
		Doc: "Whether a node that connects to another one checks that its certificate has the name or address by which it was reached: https, or empty for no.",
	},
	{
		Name: "ssl.engine.factory.class", Type: Class, Null: true, Scope: PerBroker,
		Needless: true, Doc: "Has no effect here: TLS engines are Java classes.",
	},
	{
		Name: "ssl.key.password", Type: Password, Null: true, Scope: PerBroker,
		Doc: "The password of the private key.",
	},
	{
		Name: "ssl.keymanager.algorithm", Type: String, Default: "SunX509", Scope: PerBroker,
		Needless: true, Doc: "Has no effect here: key managers belong to Java.",
	},
	{
		Name: "ssl.keystore.certificate.chain", Type: Password, Null: true, Scope: PerBroker,
		Doc: "The certificate of the key and those of its issuers themselves, as PEM, with ssl.keystore.type=PEM.",
	},
	{
		Name: "ssl.keystore.key", Type: Password, Null: true, Scope: PerBroker,
		Doc: "The private key itself, as PEM, with ssl.keystore.type=PEM.",
	},
	{
		Name: "ssl.keystore.location", Type: String, Null: true, Scope: PerBroker,
		Doc: "The file with the key and its certificates. It is read again when it has changed.",
	},
	{
		Name: "ssl.keystore.password", Type: Password, Null: true, Scope: PerBroker,
		Doc: "The password of the file with the key, if it is PKCS12.",
	},
	{
		Name: "ssl.keystore.type", Type: String, Default: "JKS", Scope: PerBroker, check: storeType,
		Doc: "The form of the file with the key: PEM or PKCS12. With JKS, the default, the file must be PKCS12, as Java allows; the older form of Java is not served.",
	},
	{
		Name: "ssl.principal.mapping.rules", Type: String, Default: "DEFAULT",
		Doc: "How the names in certificates become those of users: RULE:pattern/replacement/, with L or U behind it for small letters or capitals, or DEFAULT, which takes the whole name; the first of several rules that fits counts. If none fits, the connection is closed.",
	},
	{
		Name: "ssl.protocol", Type: String, Default: "TLSv1.3", Scope: PerBroker,
		Needless: true, Doc: "Has no effect here: the newest version of ssl.enabled.protocols is used that both ends know.",
	},
	{
		Name: "ssl.provider", Type: String, Null: true, Scope: PerBroker,
		Needless: true, Doc: "Has no effect here: TLS providers belong to Java.",
	},
	{
		Name: "ssl.secure.random.implementation", Type: String, Null: true, Scope: PerBroker,
		Needless: true, Doc: "Has no effect here: the operating system gives random numbers.",
	},
	{
		Name: "ssl.trustmanager.algorithm", Type: String, Default: "PKIX", Scope: PerBroker,
		Needless: true, Doc: "Has no effect here: trust managers belong to Java.",
	},
	{
		Name: "ssl.truststore.certificates", Type: Password, Null: true, Scope: PerBroker,
		Doc: "The trusted certificates themselves, as PEM, with ssl.truststore.type=PEM.",
	},
	{
		Name: "ssl.truststore.location", Type: String, Null: true, Scope: PerBroker,
		Doc: "The file with the trusted certificates, of those who sign the certificates of clients and of other nodes. It is read again when it has changed.",
	},
	{
		Name: "ssl.truststore.password", Type: Password, Null: true, Scope: PerBroker,
		Doc: "The password of the file with the trusted certificates, if it is PKCS12.",
	},
	{
		Name: "ssl.truststore.type", Type: String, Default: "JKS", Scope: PerBroker, check: storeType,
		Doc: "The form of the file with the trusted certificates: PEM or PKCS12, as ssl.keystore.type.",
	},
	{
		Name: "super.users", Type: String, check: principalList,
		Doc: "The users that may do everything, as type:name pairs separated by semicolons.",
	},
}
