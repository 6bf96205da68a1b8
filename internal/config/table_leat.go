package config

import "regexp"

// leatConfigs are settings that Kafka does not have. Their names begin with leat.
var leatConfigs = []Def{
	{
		Name: "leat.group.memory.bytes", Type: Long, Default: "0", check: zeroOr(aMebi),
		Doc: "How many bytes the members and committed offsets of the consumer groups on this node may take, members an eighth of it; an offset takes about 100, and requests that would need more are refused. " +
			"0 takes a quarter of the memory that the process may use, at most 256 MiB.",
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
