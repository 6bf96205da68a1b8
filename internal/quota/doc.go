// Package quota measures how much clients use of this node, and tells for how long those that use more than their quotas are
// to be throttled (KIP-13, KIP-55, KIP-124, KIP-599 and KIP-612). It is pure: time is an argument, and nothing waits here.
//
// A Table is a cluster's quotas, compiled for one kind of look-up each. A Limiter has the table of the moment and the sensors,
// which measure. An Owner is a user with a client id, and remembers its sensors. A ConnectionLimiter is for connections, which
// have addresses and no owner yet.
//
// What a sensor measures, and for how long it throttles, is as in Apache Kafka (ClientQuotaManager, ControllerMutationQuotaManager,
// ConnectionQuotas; Rate, SampledStat and TokenBucket of its metrics), which TestAgainstKafka shows. Two things differ, and no
// client can tell: there is no sensor for what has no quota; and one that has nothing to remember is dropped, since a new one
// would measure the same. So the memory of sensors follows the clients of the last seconds. Their number is bounded, too:
// the sensor that was unused for the longest time gives its place to a new one.
//
// A Limiter, an Owner and a ConnectionLimiter may be used by any goroutine. No goroutine holds more than one of the locks.
package quota
