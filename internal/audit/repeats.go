package audit

import (
	"net/netip"
	"time"

	"github.com/leatstream/leat/internal/budget"
)

// class is a group of events that are told apart from each other together. No flood of one class has events of another counted
// without what they were about: anybody can fail to log in under any name, and nobody shall hide a login, or what was denied, behind that.
type class uint8

const (
	failedLogins class = iota
	logins
	denials
	attempts // changes that have failed, and offsets
	uses     // reads and writes

	classes
)

// mostRepeats is how many events of a class are told apart at a time.
var mostRepeats = [classes]int{failedLogins: 1024, logins: 4096, denials: 2048, attempts: 1024, uses: 4096}

const (
	// mostOfOwner is how many events of a class are told apart of one owner, but for uses.
	mostOfOwner = 256
	// mostFailedAnHour is how many events of failed logins one network can go on to have for long, above mostOfOwner at once: who has
	// not logged in can have no more than some megabytes a day be written into the log.
	mostFailedAnHour = 240
	// mostAllowances is how many networks are known that have used up something of that. All others have one allowance together.
	mostAllowances = 4096
	// mostOwners is how many owners have their other events counted by themselves.
	mostOwners = 64
)

func classOf(t Type) class {
	switch t {
	case LoginFailed:
		return failedLogins
	case LoginSucceeded:
		return logins
	case Denied:
		return denials
	case Read, Written:
		return uses
	default:
		return attempts
	}
}

// repeats sums up events that are the same but for their time. The first one passes; those that follow within an interval are counted, and
// come as one event at its end. When it knows mostOfOwner of one owner, or mostRepeats of a class, others pass no more: they are counted
// together, by type and owner, or by type, without what they were about. So are failed logins of a network that goes on and on.
//
//	unknown --event--> counting, which lets it pass --more--> counting --the interval is over--> one event with the count, and counting again;
//	                                                                                             or unknown, if there was no more
//
// It belongs to its Recorder.
type repeats struct {
	of    map[repeatKey]*repeat
	kept  [classes]int              // those in of, by class, but for those that stand for others
	owned map[owner]int             // the same by owner
	known map[netip.Addr]*allowance // of failed logins, by network; the zero address: of all that are not known
	apart int                       // how many repeats stand for others of an owner
}

// allowance is how many events of failed logins a network may have now.
type allowance struct {
	left float64
	at   time.Time
}

// spend takes one, if there is one.
func (a *allowance) spend(now time.Time) bool {
	a.refill(now)
	if a.left < 1 {
		return false
	}
	a.left--
	return true
}

func (a *allowance) refill(now time.Time) {
	if now.After(a.at) {
		a.left = min(mostOfOwner, a.left+now.Sub(a.at).Hours()*mostFailedAnHour)
		a.at = now
	}
}

// owner is who can make events as he likes: a user from one network, or whoever has not logged in from it.
type owner struct {
	class     class
	principal string
	network   netip.Addr
}

type repeatKey struct {
	typ                    Type
	principal, host, op    string
	resourceType, resource string
	api                    string
	result                 Result
	others                 others
}

// others says for which other events a repeat stands.
type others uint8

const (
	noOthers others = iota
	othersOfOwner
	othersOfType
)

type repeat struct {
	owner       owner
	event       Event // the last one
	count       int64 // after the one that has passed
	first, ends time.Time
}

func newRepeats() repeats {
	return repeats{of: map[repeatKey]*repeat{}, owned: map[owner]int{}, known: map[netip.Addr]*allowance{}}
}

// add takes an event, and tells whether it passes.
func (r *repeats) add(e *Event, host string, interval time.Duration) (passes bool) {
	key := repeatKey{e.Type, e.Principal, host, e.Operation, e.ResourceType, e.Resource, e.API, e.Result, noOthers}
	if k := r.of[key]; k != nil {
		k.note(e.Time)
		k.event = *e
		return false
	}
	by := ownerOf(e, host)
	switch {
	case by.class != uses && r.owned[by] >= mostOfOwner:
		r.countOther(e, by, 1, e.Time, interval)
	case r.kept[by.class] >= mostRepeats[by.class]:
		r.countOther(e, owner{}, 1, e.Time, interval)
	case !r.spend(by, e.Time):
		r.countOther(e, by, 1, e.Time, interval)
	default:
		r.of[key] = &repeat{owner: by, event: *e, ends: e.Time.Add(interval)}
		r.kept[by.class]++
		r.owned[by]++
		return true
	}
	return false
}

// spend tells whether there may be one more event of an owner in the log now.
func (r *repeats) spend(by owner, now time.Time) bool {
	if by.class != failedLogins {
		return true
	}
	a := r.known[by.network]
	if a == nil && len(r.known) >= mostAllowances {
		by.network = netip.Addr{}
		a = r.known[by.network]
	}
	if a == nil {
		a = &allowance{mostOfOwner, now}
		r.known[by.network] = a
	}
	return a.spend(now)
}

// countOther counts n events, the first of which came at a time, with others of an owner, or of all if it is the zero owner.
func (r *repeats) countOther(e *Event, by owner, n int64, first time.Time, interval time.Duration) {
	key := repeatKey{typ: e.Type, others: othersOfType}
	if by != (owner{}) {
		key = repeatKey{typ: e.Type, principal: by.principal, host: by.network.String(), others: othersOfOwner}
		if r.of[key] == nil && r.apart >= mostOwners {
			key = repeatKey{typ: e.Type, others: othersOfType}
		}
	}
	k := r.of[key]
	if k == nil {
		k = &repeat{ends: e.Time.Add(interval)}
		r.of[key] = k
		if key.others == othersOfOwner {
			r.apart++
		}
	}
	if k.count == 0 {
		k.first = first
	}
	k.count += n
	k.event = Event{Type: e.Type, Time: e.Time, Result: e.Result, Reason: "many different ones, which are counted together"}
	if key.others == othersOfOwner {
		k.event.Who = Who{Principal: e.Principal, Address: e.Address}
		k.event.Reason = "many different ones of this user and network, which are counted together"
	}
}

func ownerOf(e *Event, host string) owner {
	ip, _ := netip.ParseAddr(host) // the zero address for a host that has none
	return owner{classOf(e.Type), e.Principal, budget.NetworkOf(ip)}
}

// note counts an event.
func (k *repeat) note(at time.Time) {
	if k.count == 0 {
		k.first = at
	}
	k.count++
}

// take returns the sums whose interval is over, or all, and forgets what did not repeat.
func (r *repeats) take(now time.Time, interval func(*Event) time.Duration, all bool) (sums []Event) {
	var spent []repeatKey // of networks that have used up their allowance
	for key, k := range r.of {
		if !all && now.Before(k.ends) {
			continue
		}
		if k.count == 0 {
			r.forget(key, k)
			continue
		}
		if key.others == noOthers && !all && !r.spend(k.owner, now) {
			spent = append(spent, key)
			continue
		}
		e := k.event
		e.Count, e.First, e.Last = k.count, k.first, e.Time
		sums = append(sums, e)
		k.count, k.ends = 0, now.Add(interval(&e))
		if key.others != noOthers {
			r.forget(key, k)
		}
	}
	for _, key := range spent {
		k := r.of[key]
		r.forget(key, k)
		r.countOther(&k.event, k.owner, k.count, k.first, max(0, now.Sub(k.event.Time))+interval(&k.event))
	}
	for network, a := range r.known {
		if a.refill(now); a.left >= mostOfOwner {
			delete(r.known, network)
		}
	}
	return sums
}

func (r *repeats) forget(key repeatKey, k *repeat) {
	delete(r.of, key)
	if key.others == othersOfOwner {
		r.apart--
	}
	if key.others != noOthers {
		return
	}
	r.kept[k.owner.class]--
	if r.owned[k.owner]--; r.owned[k.owner] == 0 {
		delete(r.owned, k.owner)
	}
}
