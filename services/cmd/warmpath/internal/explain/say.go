package explain

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// Say writes the decision that was in force at a time in sentences; role "" is all. Times are said in at's zone.
func Say(w io.Writer, f *Found, model string, role decide.Role, at time.Time) error {
	d := f.Decision
	if role != "" {
		r, ok := d.Roles[role]
		if !ok {
			return fmt.Errorf("the decision has no role %s, only %s", role, names(d.Roles))
		}
		d.Roles = map[decide.Role]decide.RoleDecision{role: r}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Pool %s (%s) at %s: decided %s before, at %s.\n", model, f.Pool, stamp(at, at), length(at.Sub(f.At)), stamp(f.At, at))
	if f.Next.IsZero() {
		if silent := at.Sub(f.At); silent > lookBack {
			fmt.Fprintf(&b, "Nothing was decided for %s since: no autoscaler runs, or it does not reach NATS.\n", length(silent))
		}
	} else {
		fmt.Fprintf(&b, "It held until %s.\n", stamp(f.Next, at))
	}
	b.WriteByte('\n')
	for _, s := range sentences(&d) {
		fmt.Fprintln(&b, s)
	}
	for _, role := range slices.Sorted(maps.Keys(d.Roles)) {
		if v, ok := f.Came[role]; ok {
			fmt.Fprintf(&b, "%s: it foresaw %.2f busy replicas; %.2f came.\n", role, v.Forecast, v.Came)
		} else {
			fmt.Fprintf(&b, "%s: what came of it is not known yet.\n", role)
		}
	}
	fmt.Fprintf(&b, "\nThe log reaches back to %s.\n", stamp(f.Earliest, at))
	_, err := io.WriteString(w, clean(b.String()))
	return err
}

func sentences(d *decide.Decision) []string {
	all := []string{fmt.Sprintf("Mode %s. Ages: routers %.1f s, engines %.1f s, cluster %.1f s.", d.Mode, d.Ages.Routers, d.Ages.Engines, d.Ages.Cluster)}
	if d.Blind != "" {
		all = append(all, "Blind: "+d.Blind+".")
	}
	for _, role := range slices.Sorted(maps.Keys(d.Roles)) {
		r := d.Roles[role]
		all = append(all, fmt.Sprintf("%s: %d now, %d needed, %d wanted, by rule %s.", role, r.Now, r.Need, r.Target, r.Rule))
		for _, c := range r.Candidates {
			all = append(all, fmt.Sprintf("%s: rule %s asks for %d.", role, c.Rule, c.N))
		}
		for _, why := range r.Blocked {
			all = append(all, fmt.Sprintf("%s: not done: %s.", role, why))
		}
		for _, p := range r.Predicted {
			all = append(all, fmt.Sprintf("%s: with %d, %.2g %% of requests would miss their objective.", role, p.N, 100*p.Violations))
		}
	}
	return all
}

func names(roles map[decide.Role]decide.RoleDecision) string {
	if len(roles) == 0 {
		return "none"
	}
	var all []string
	for _, role := range slices.Sorted(maps.Keys(roles)) {
		all = append(all, string(role))
	}
	return strings.Join(all, ", ")
}

func stamp(t, zone time.Time) string { return t.In(zone.Location()).Format(time.RFC3339) }

// length says a duration with no more digits than anyone reads.
func length(d time.Duration) string {
	switch {
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	default:
		return d.Round(time.Second).String()
	}
}

// clean takes out what a terminal would obey: names and reasons come from others.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsGraphic(r) || r == '\n' {
			return r
		}
		return '?'
	}, s)
}
