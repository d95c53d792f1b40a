package bus

import (
	"fmt"
	"strconv"
	"strings"
)

// The streams.
const (
	Events   = "EVENTS"   // deltas, claims, resets, snapshots, digests: kv.<pool>.<bucket>
	Requests = "REQUESTS" // request and decision records: req.<pool>; the autoscaler's decisions: scale.<pool>
)

// The key-value buckets.
const (
	Members   = "members" // keys expire 6 s after their last Put
	Engines   = "engines"
	Drain     = "drain"
	Config    = "config"
	Control   = "control"
	Keys      = "keys"
	Budgets   = "budgets"
	Positions = "positions"
)

// EventSubject is where the events of a pool's bucket are logged; "*" as pool means all pools.
func EventSubject(pool string, bucket int) string { return fmt.Sprintf("kv.%s.%02d", pool, bucket) }

// AllEvents matches the events of every pool and bucket.
const AllEvents = "kv.*.*"

// ParseEventSubject undoes EventSubject.
func ParseEventSubject(subject string) (pool string, bucket int, ok bool) {
	return parse("kv.", subject)
}

func parse(prefix, subject string) (pool string, bucket int, ok bool) {
	rest, ok := strings.CutPrefix(subject, prefix)
	if !ok {
		return "", 0, false
	}
	pool, digits, ok := strings.Cut(rest, ".")
	if !ok || pool == "" || len(digits) != 2 {
		return "", 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 8)
	if err != nil || n > 63 {
		return "", 0, false
	}
	return pool, int(n), true
}

// RequestSubject is where routers log the request records of a pool.
func RequestSubject(pool string) string { return "req." + pool }

// AllRequests matches the request records of every pool.
const AllRequests = "req.*"

// ScaleSubject is where the autoscaler logs what it decides of a pool.
func ScaleSubject(pool string) string { return "scale." + pool }

// AllScales matches the autoscaler's decisions of every pool.
const AllScales = "scale.*"

// ReportSubject is where a router reports each second on a pool; "*" matches any.
func ReportSubject(pool, router string) string { return "report." + pool + "." + router }

// AskSubject is where a reader asks the owner of a bucket for fresh snapshots.
func AskSubject(pool string, bucket int) string { return fmt.Sprintf("ask.%s.%02d", pool, bucket) }

// AllAsks matches what readers ask of every pool and bucket.
const AllAsks = "ask.*.*"

// ParseAskSubject undoes AskSubject.
func ParseAskSubject(subject string) (pool string, bucket int, ok bool) {
	return parse("ask.", subject)
}

// LedgerSubject is where the routers of a pool tell one another what they have under way; "*" as pool means all pools.
func LedgerSubject(pool string) string { return "ledger." + pool }

// ParseLedgerSubject undoes LedgerSubject.
func ParseLedgerSubject(subject string) (pool string, ok bool) {
	pool, ok = strings.CutPrefix(subject, "ledger.")
	return pool, ok && pool != "" && !strings.Contains(pool, ".")
}

// streamOf names the stream that keeps a subject.
func streamOf(subject string) string {
	if strings.HasPrefix(subject, "req.") || strings.HasPrefix(subject, "scale.") {
		return Requests
	}
	return Events
}
