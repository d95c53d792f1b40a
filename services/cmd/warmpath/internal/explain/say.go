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

// Say writes the decision that was in force at a time in sentences; role "" is all. Times that it adds are said in at's
// zone.
func Say(w io.Writer, f *Found, model string, role decide.Role, at time.Time) error {
	roles := slices.Sorted(maps.Keys(f.Roles))
	if role != "" {
		if _, ok := f.Roles[role]; !ok {
			return fmt.Errorf("the decision has no role %s, only %s", role, names(f.Roles))
		}
		roles = []decide.Role{role}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Pool %s (%s) at %s: decided %s before, at %s.\n", model, f.Pool, stamp(at), length(at.Sub(f.At)), stamp(f.At.In(at.Location())))
	if !f.Next.IsZero() {
		fmt.Fprintf(&b, "It held until %s.\n", stamp(f.Next.In(at.Location())))
	} else if silent := at.Sub(f.At); silent > lookBack {
		fmt.Fprintf(&b, "Nothing was decided for %s since: no autoscaler runs, or it does not reach NATS.\n", length(silent))
	}
	for _, role := range roles {
		fmt.Fprintf(&b, "\n%s\n", role)
		for _, s := range f.Sentences(model, role) {
			fmt.Fprintf(&b, "  %s\n", s)
		}
		if v, ok := f.Came[role]; ok {
			fmt.Fprintf(&b, "  Later it was seen that of %.2f busy replicas that it foresaw %.2f came.\n", v.Forecast, v.Came)
		} else {
			fmt.Fprintln(&b, "  What came of this forecast is not logged.")
		}
	}
	fmt.Fprintf(&b, "\nThe log reaches back to %s.\n", stamp(f.Earliest.In(at.Location())))
	_, err := io.WriteString(w, clean(b.String()))
	return err
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

func stamp(t time.Time) string { return t.Format(time.RFC3339) }

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
