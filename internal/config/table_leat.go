package config

import "regexp"

// leatConfigs are settings that Kafka does not have. Their names begin with leat.
var leatConfigs = []Def{
	{
		Name: "leat.group.memory.bytes", Type: Long, Default: "0", check: zeroOr(aMebi),
		Doc: "How many bytes the consumer groups that this node coordinates may keep, for their members and their committed offsets, of which one takes about 100; what would need more is refused. " +
			"0 takes a quarter of the memory that the process may use, at most 256 MiB.",
	},
	{
		Name: "leat.journal.bytes", Type: Long, Default: "67108864", check: atLeast(4 * aMebi),
		Doc: "The size of the journal into which commits of many partitions go; a larger one lets the files behind it be synced less often, and takes longer to recover from.",
	},
	{
		Name: "leat.scrub.bytes.per.second", Type: Long, Default: "8388608", check: atLeast(0),
		Doc: "How fast, once a day, everything at rest is read to find damage; an eighth of that while records come in, 0 means never.",
	},
	{
		Name: "leat.stray.retention.ms", Type: Long, Default: "604800000", check: strayRetention,
		Doc: "How long a directory is kept that was set aside since the cluster's metadata do not know its topic; -1 keeps it for ever.",
	},
	{
		Name: "leat.tcp.congestion.control", Type: String, check: congestion,
		Doc: "The TCP congestion control of connections from other machines, such as cubic or bbr; empty leaves the system's. Linux only.",
	},
	{
		Name: "leat.tcp.congestion.control.local", Type: String, Default: "reno", check: congestion,
		Doc: "The same for connections from this machine, where nothing is ever congested and bbr, which many systems use, doubles the CPU of large answers.",
	},
	{
		Name: "leat.work.memory.bytes", Type: Long, Default: "0", check: zeroOr(32 * aMebi),
		Doc: "How much memory requests may take beyond their own bytes: to decompress and compress, to be decoded, and for answers; work that does not fit waits its turn, and work that never could is refused. " +
			"0 takes a sixth of the memory that the process may use, at least 32 MiB and at most 64 MiB and 16 MiB for each processor.",
	},
}

// strayRetention allows -1, and times from a minute on: long enough to see the line that says
// what was set aside.
func strayRetention(v value) string {
	if v.n == -1 {
		return ""
	}
	return atLeast(60_000)(v)
}

// zeroOr allows 0 and everything from a bound on.
func zeroOr(least int64) func(value) string {
	return func(v value) string {
		if v.n == 0 {
			return ""
		}
		return atLeast(least)(v)
	}
}

// congestionName is how Linux names an algorithm: the length is TCP_CA_NAME_MAX.
var congestionName = regexp.MustCompile(`^[a-z0-9_-]{0,15}$`)

func congestion(v value) string {
	if congestionName.MatchString(v.s) {
		return ""
	}
	return "Value must be the name of a congestion control, such as cubic, or empty"
}
