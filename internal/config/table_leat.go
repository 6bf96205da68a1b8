package config

import "regexp"

// leatConfigs are settings that Kafka does not have. Their names begin with leat.
var leatConfigs = []Def{
	{
		Name: "leat.audit.destinations", Type: List, Default: "auto", check: auditDestinations,
		Doc: "Where the node records who did what: topic (the topic __leat_audit), file (the file of leat.audit.file), both with a comma between them, or none. " +
			"auto means topic where ACLs decide what clients may do, and none elsewhere.",
	},
	{
		Name: "leat.audit.events", Type: List, Default: "login,denied,change", check: listOf("login", "denied", "change", "read", "write"),
		Doc: "Which events are recorded: login (logins, and those that failed), denied (what the ACLs did not allow), change (of topics, configs, ACLs, users, quotas, nodes and the like, groups and records deleted, offsets set), " +
			"and the use of a topic by a user: read and write.",
	},
	{
		Name: "leat.audit.excluded.principals", Type: String, check: principalList,
		Doc: "Users of whom only changes are recorded, as type:name pairs separated by semicolons, such as those of programs that watch the cluster.",
	},
	{
		Name: "leat.audit.file", Type: String,
		Doc: "The file to which events are written where leat.audit.destinations has file; its directory must exist. Older ones have the same name with .1, .2 and so on behind it.",
	},
	{
		Name: "leat.audit.file.bytes", Type: Long, Default: "104857600", check: atLeast(aMebi),
		Doc: "The size at which events go into a new file.",
	},
	{
		Name: "leat.audit.file.count", Type: Int, Default: "10", check: between(1, 10_000),
		Doc: "How many files with events are kept; the oldest one is deleted when there are more.",
	},
	{
		Name: "leat.audit.interval.ms", Type: Long, Default: "60000", check: between(1000, 24*60*60*1000),
		Doc: "How long logins and denials that are the same are summed up: the first one is recorded at once, and those that follow as one event with their number.",
	},
	{
		Name: "leat.audit.use.interval.ms", Type: Long, Default: "3600000", check: between(1000, 7*24*60*60*1000),
		Doc: "How long reads, and writes, of the same topic by the same user from the same address are summed up, where leat.audit.events has them.",
	},
	{
		Name: "leat.group.memory.bytes", Type: Long, Default: "0", check: zeroOr(aMebi),
		Doc: "How many bytes the members and committed offsets of the consumer groups on this node may take, members an eighth of it; an offset takes about 100, and requests that would need more are refused. " +
			"0 takes a quarter of the memory that the process may use, at most 256 MiB.",
	},
	{
		Name: httpHosts, Type: List,
		Doc: "Further names by which browsers and proxies may ask for the pages of HTTP where the port is on a loopback address; who asks by another name than localhost or a loopback address is shown nothing there, so that a web site cannot reach the port by a name of its own (DNS rebinding).",
	},
	{
		Name: "leat.http.metrics.login", Type: Bool, Default: "true", Scope: ClusterWide,
		Doc: "Whether /metrics of a secured node asks for a login, by a user who may DESCRIBE the cluster; false shows the metrics, which have names of topics, to everybody who reaches the HTTP port.",
	},
	{
		Name: clientIDKey, Type: String,
		Doc: "The name by which the issuer of leat.http.oidc.issuer.url knows the pages of HTTP; an ID token must be for it.",
	},
	{
		Name: clientSecret, Type: Password, Null: true,
		Doc: "The secret with which the node proves to the issuer that it is leat.http.oidc.client.id; without one the client is a public one, which PKCE protects alone. Write it into the file of --config: others see the command line.",
	},
	{
		Name: issuerURL, Type: String,
		Doc: "The issuer of OpenID Connect by which users log in at the pages of HTTP of a secured node, an https:// URL; its configuration is read at /.well-known/openid-configuration below it. " +
			"The claims with the user's name and groups, the clock skew, the times at which keys are read, and the certificates by which the issuer is trusted are those of sasl.oauthbearer.* and leat.sasl.oauthbearer.* without a listener.",
	},
	{
		Name: redirectURL, Type: String,
		Doc: "The address of the pages of HTTP of this node as users' browsers have it, such as https://broker1.example.com:8080; the issuer must allow it with /login/oidc/callback behind it.",
	},
	{
		Name: oidcPrefix + "scopes", Type: List, Default: openID,
		Doc: "The scopes that are asked for at the issuer of leat.http.oidc.issuer.url; openid is always one of them.",
	},
	{
		Name: sessionPrefix + "idle.ms", Type: Long, Default: "1800000", check: between(1000, 30*24*60*60*1000),
		Doc: "How long a browser that has logged in at the pages of HTTP may be idle until it must log in again.",
	},
	{
		Name: sessionPrefix + "max.ms", Type: Long, Default: "43200000", check: between(1000, 30*24*60*60*1000),
		Doc: "How long a browser that has logged in at the pages of HTTP stays so at most; a login by OpenID Connect also ends with its ID token.",
	},
	{
		Name: "leat.journal.bytes", Type: Long, Default: "67108864", check: atLeast(4 * aMebi),
		Doc: "The size of the journal, into which commits of many partitions are written together; with a larger one the logs' files are synced less often, and a recovery takes longer.",
	},
	{
		Name: "leat.quorum.voter.away.ms", Type: Long, Default: "300000", check: atLeast(1000), Scope: ClusterWide,
		Doc: "How long a node that votes in the metadata quorum may be away until another node that is well takes its vote.",
	},
	{
		Name: "leat.quorum.voters", Type: Int, Default: "3", check: voters, Scope: ClusterWide,
		Doc: "How many nodes vote in the metadata quorum at most, if the cluster has as many: with 3 it goes on when one of them is lost, and with 5 when two are.",
	},
	{
		Name: issuerCA, Type: String,
		Doc: "The file, in PEM form, with the certificates of the authorities by which the issuer of tokens is trusted when its keys and its configuration are read over https; empty means those of the system. It is read anew each time.",
	},
	{
		Name: groupClaimName, Type: String, Default: "groups",
		Doc: "The claim that holds the groups of the user in tokens of OAuth, a list of texts or one text; ACLs and roles for Group:NAME count for the users that are in the group.",
	},
	{
		Name: "leat.scrub.bytes.per.second", Type: Long, Default: "8388608", check: atLeast(0),
		Doc: "How fast the node reads all its data at rest, once a day, to find damage; an eighth of that while records are appended; 0 means never.",
	},
	{
		Name: "leat.stray.delete.enable", Type: Bool, Default: "false",
		Doc: "Whether the node deletes directories that were set aside because the cluster's metadata do not have their topics, after leat.stray.retention.ms; false keeps them until you delete them.",
	},
	{
		Name: "leat.stray.retention.ms", Type: Long, Default: "604800000", check: strayRetention,
		Doc: "How long a directory that was set aside is kept where leat.stray.delete.enable is true; -1 keeps it for ever.",
	},
	{
		Name: "leat.tcp.congestion.control", Type: String, check: congestionControl,
		Doc: "The TCP congestion control of connections from other machines, such as cubic or bbr; empty means the system's own choice. Linux only.",
	},
	{
		Name: "leat.tcp.congestion.control.local", Type: String, Default: "reno", check: congestionControl,
		Doc: "The TCP congestion control of connections from this machine. These are never congested, and bbr, which many systems use, takes twice the CPU for large answers. Linux only.",
	},
	{
		Name: "leat.work.memory.bytes", Type: Long, Default: "0", check: zeroOr(32 * aMebi),
		Doc: "How much memory requests may take besides their own bytes, to be decoded, decompressed and compressed, and for answers; a request for which there is not enough waits, and one that needs more than this is refused. " +
			"0 takes a sixth of the memory that the process may use, at least 32 MiB and at most 64 MiB and 16 MiB for each processor.",
	},
}

// strayRetention accepts -1, and times of at least a minute, in which the operator can see the
// log line about the directory.
func strayRetention(v value) string {
	if v.n == -1 {
		return ""
	}
	return atLeast(60_000)(v)
}

// zeroOr accepts 0 and numbers of at least a bound.
func zeroOr(least int64) func(value) string {
	return func(v value) string {
		if v.n == 0 {
			return ""
		}
		return atLeast(least)(v)
	}
}

// congestionName matches Linux's names of algorithms, whose length is less than TCP_CA_NAME_MAX.
var congestionName = regexp.MustCompile(`^[a-z0-9_-]{0,15}$`)

func congestionControl(v value) string {
	if congestionName.MatchString(v.s) {
		return ""
	}
	return "Value must be the name of a congestion control, such as cubic, or empty"
}
