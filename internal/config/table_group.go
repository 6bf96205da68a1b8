package config

import "strings"

// These are the values of Needs in this file.
const (
	needsNextGen       = "next-generation groups"
	needsShareGroups   = "share groups"
	needsStreamsGroups = "streams groups"
	needsClientMetrics = "client metrics"
)

// groupConfigs are the configs of groups.
var groupConfigs = []Def{
	{
		Name: "consumer.assignment.interval.ms", Type: Int, Default: "1000", check: atLeast(0), synonyms: from("group.consumer.assignment.interval.ms"),
		Doc: "The shortest time between two new assignments of a consumer group.", Needs: needsNextGen,
	},
	{
		Name: "consumer.heartbeat.interval.ms", Type: Int, Default: "5000", check: atLeast(1), synonyms: from("group.consumer.heartbeat.interval.ms"),
		Doc: "How often members of a consumer group send a heartbeat.", Needs: needsNextGen,
	},
	{
		Name: "consumer.session.timeout.ms", Type: Int, Default: "45000", check: atLeast(1), synonyms: from("group.consumer.session.timeout.ms"),
		Doc: "How long a member of a consumer group may be silent before it is removed.", Needs: needsNextGen,
	},
	{
		Name: "errors.deadletterqueue.copy.record.enable", Type: Bool, Default: "false",
		Doc: "Whether the dead letter queue gets the whole record, or only its partition and offset.", Needs: needsShareGroups,
	},
	{
		Name: "errors.deadletterqueue.topic.name", Type: String,
		Doc: "The topic for records that a share group has given up; empty means none.", Needs: needsShareGroups,
	},
	{
		Name: "share.assignment.interval.ms", Type: Int, Default: "1000", check: atLeast(0), synonyms: from("group.share.assignment.interval.ms"),
		Doc: "The shortest time between two new assignments of a share group.", Needs: needsShareGroups,
	},
	{
		Name: "share.auto.offset.reset", Type: String, Default: "latest", check: offsetReset,
		Doc: "Where a new share group begins to read: earliest, latest, or a time before now, such as by_duration:PT1H.", Needs: needsShareGroups,
	},
	{
		Name: "share.delivery.count.limit", Type: Int, Default: "5", check: atLeast(2), synonyms: from("group.share.delivery.count.limit"),
		Doc: "How often a record is delivered before it is given up.", Needs: needsShareGroups,
	},
	{
		Name: "share.heartbeat.interval.ms", Type: Int, Default: "5000", check: atLeast(1), synonyms: from("group.share.heartbeat.interval.ms"),
		Doc: "How often members of a share group send a heartbeat.", Needs: needsShareGroups,
	},
	{
		Name: "share.isolation.level", Type: String, Default: "read_uncommitted", check: oneOf("read_committed", "read_uncommitted"),
		Doc: "Whether a share group sees records of transactions before they are committed.", Needs: needsShareGroups,
	},
	{
		Name: "share.partition.max.record.locks", Type: Int, Default: "2000", check: atLeast(100), synonyms: from("group.share.partition.max.record.locks"),
		Doc: "How many records of a partition the members of a share group may hold at a time.", Needs: needsShareGroups,
	},
	{
		Name: "share.record.lock.duration.ms", Type: Int, Default: "30000", check: atLeast(1000), synonyms: from("group.share.record.lock.duration.ms"),
		Doc: "How long a member of a share group may keep a record before another one gets it.", Needs: needsShareGroups,
	},
	{
		Name: "share.renew.acknowledge.enable", Type: Bool, Default: "true",
		Doc: "Whether a member of a share group may ask for more time for a record.", Needs: needsShareGroups,
	},
	{
		Name: "share.session.timeout.ms", Type: Int, Default: "45000", check: atLeast(1), synonyms: from("group.share.session.timeout.ms"),
		Doc: "How long a member of a share group may be silent before it is removed.", Needs: needsShareGroups,
	},
	{
		Name: "streams.assignment.interval.ms", Type: Int, Default: "1000", check: atLeast(0), synonyms: from("group.streams.assignment.interval.ms"),
		Doc: "The shortest time between two new assignments of a streams group.", Needs: needsStreamsGroups,
	},
	{
		Name: "streams.heartbeat.interval.ms", Type: Int, Default: "5000", check: atLeast(1), synonyms: from("group.streams.heartbeat.interval.ms"),
		Doc: "How often members of a streams group send a heartbeat.", Needs: needsStreamsGroups,
	},
	{
		Name: "streams.initial.rebalance.delay.ms", Type: Int, Default: "3000", check: atLeast(0), synonyms: from("group.streams.initial.rebalance.delay.ms"),
		Doc: "How long a new streams group waits for more members before its first assignment.", Needs: needsStreamsGroups,
	},
	{
		Name: "streams.num.standby.replicas", Type: Int, Default: "0", check: atLeast(0), synonyms: from("group.streams.num.standby.replicas"),
		Doc: "How many warm copies of a task's state a streams group keeps.", Needs: needsStreamsGroups,
	},
	{
		Name: "streams.session.timeout.ms", Type: Int, Default: "45000", check: atLeast(1), synonyms: from("group.streams.session.timeout.ms"),
		Doc: "How long a member of a streams group may be silent before it is removed.", Needs: needsStreamsGroups,
	},
}

// clientMetricsConfigs are the configs of metrics subscriptions.
var clientMetricsConfigs = []Def{
	{
		Name: "interval.ms", Type: Int, Default: "300000", check: pushInterval,
		Doc: "How often clients push their metrics.", Needs: needsClientMetrics,
	},
	{
		Name: "match", Type: List, check: clientMatch,
		Doc: "Which clients are asked, as pairs of a property and a regular expression; empty means all.", Needs: needsClientMetrics,
	},
	{
		Name: "metrics", Type: List,
		Doc: "The prefixes of the names of the metrics that clients push; * means all.", Needs: needsClientMetrics,
	},
}

// boundedByBrokers are the group configs whose range is set by the broker configs
// group.<kind>.min.<rest> and group.<kind>.max.<rest>.
var boundedByBrokers = []string{
	"consumer.session.timeout.ms", "consumer.heartbeat.interval.ms", "consumer.assignment.interval.ms",
	"share.session.timeout.ms", "share.heartbeat.interval.ms", "share.assignment.interval.ms",
	"share.record.lock.duration.ms", "share.delivery.count.limit", "share.partition.max.record.locks",
	"streams.session.timeout.ms", "streams.heartbeat.interval.ms", "streams.assignment.interval.ms",
	"streams.num.standby.replicas",
}

// checkGroup refuses configs of a group that are outside of the ranges of the broker configs,
// or contradict each other.
func checkGroup(v View, set map[string]string) error {
	number := func(key string) int64 {
		e := v.makeEntry(groupTable.byName[key], set, GroupSource)
		parsed, _ := e.Def.parseValue(e.Value) // it was checked when it was set
		return parsed.n
	}
	for _, key := range boundedByBrokers {
		if _, ok := set[key]; !ok {
			continue
		}
		n := number(key)
		lo, hi := rangeOf(key)
		if least, ok := v.brokerNumber(lo); ok && n < least {
			return badConfig("%s must be greater than or equal to %s", key, lo)
		}
		if most, ok := v.brokerNumber(hi); ok && n > most {
			return badConfig("%s must be less than or equal to %s", key, hi)
		}
	}
	for _, kind := range []string{"consumer", "share", "streams"} {
		if number(kind+".session.timeout.ms") <= number(kind+".heartbeat.interval.ms") {
			return badConfig("%s.session.timeout.ms must be greater than %s.heartbeat.interval.ms", kind, kind)
		}
	}
	return nil
}

// checkBroker refuses configs of a broker that contradict each other.
func checkBroker(v View) error {
	ordered := func(lo, hi string) error {
		a, aOK := v.brokerNumber(lo)
		b, bOK := v.brokerNumber(hi)
		if aOK && bOK && a > b {
			return badConfig("%s must be greater than or equal to %s", hi, lo)
		}
		return nil
	}
	errs := []error{ordered("group.min.session.timeout.ms", "group.max.session.timeout.ms")}
	for _, key := range boundedByBrokers {
		lo, hi := rangeOf(key)
		errs = append(errs, ordered(lo, hi), ordered(lo, "group."+key), ordered("group."+key, hi))
	}
	for _, kind := range []string{"consumer", "share", "streams"} {
		session, heartbeat := "group."+kind+".session.timeout.ms", "group."+kind+".heartbeat.interval.ms"
		a, _ := v.brokerNumber(session)
		if b, _ := v.brokerNumber(heartbeat); a <= b {
			errs = append(errs, badConfig("%s must be less than %s", heartbeat, session))
		}
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// rangeOf names the broker configs that bound a group's config.
func rangeOf(key string) (lo, hi string) {
	kind, rest, _ := strings.Cut(key, ".")
	rest = strings.TrimPrefix(rest, "num.")
	return "group." + kind + ".min." + rest, "group." + kind + ".max." + rest
}

// brokerNumber is the number of a broker config on this node; false: it has none.
func (v View) brokerNumber(key string) (int64, bool) {
	d := brokerTable.byName[key]
	if d == nil {
		return 0, false
	}
	found := v.findValues([]synonym{{name: key}})
	if len(found) == 0 {
		return 0, false
	}
	parsed, err := d.parseValue(found[0].Value)
	return parsed.n, err == nil
}
