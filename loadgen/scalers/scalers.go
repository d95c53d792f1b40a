// Package scalers holds the autoscalers that ours is compared with: what is published of each, with its own formulas,
// thresholds, periods and limits, so that none loses to a weakness that it has not.
//
// Every one sees a decide.Observation, as ours does, and answers with replicas; only static-peak, clairvoyant and
// offline-optimum also see Truth. Section numbers in comments are those of the project's reference page "Autoscaling
// prefill and decode for vLLM", and "policy page" is "Autoscaler policy". Two things are the same for all. Where the
// original knows no roles it runs once for each, on the signal that the field uses for that role. And where requests
// wait in our router's queue, those who count waiting work count it too, as the originals do with a queue of their own.
//
// Tuned knobs were chosen on ramp and azure (start-up 110 s, FCFS, seed 1) and are fixed. Good answers and GPU-hours
// there, default -> tuned, ramp and azure:
//
//	hpa-waiting  69 %/102, 79 %/128 -> 96 %/38, 95 %/31   1 waiting and KV .35 for each pod; rates of calm
//	kpa          14 %/27,  37 %/43  -> 77 %/62, 97 %/69   1 and 50 requests for each pod; window 600 s
//	llmd-token   10 %/39,  67 %/17  -> 99 %/41, 96 %/28   .3 s and KV .35; rates of calm
//	llmd-slo     99 %/65,  98 %/69  -> 97 %/41, 97 %/41   up over .70, down under .55
//	wva-v2       91 %/32,  67 %/65  -> 99 %/44, 86 %/44   k1 .4; down by one pod in a minute
//	dynamo       70 %/24,  91 %/21  -> 95 %/27, 96 %/23   interval 60 s; 1.3 times the predicted load
//	fixed-ratio  98 %/36,  91 %/22  -> 100 %/42, 97 %/25  .5 of a decode replica's tokens/s, .6 of prefill
package scalers

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// Scaler says how many replicas of each role a pool should have: those that start included, those that drain not.
// It is called every 5 s and keeps its own time: most answer the same for a while. Not safe for concurrent use.
type Scaler interface {
	Decide(o decide.Observation, now time.Time) map[decide.Role]int
}

// Setup is what a scaler is told before it begins.
type Setup struct {
	Policy  decide.Policy // objectives, bounds and the profile of a replica; a GPU budget is not looked at
	Startup time.Duration // ordered to ready, as an operator would foresee it
	Truth   *Truth        // for the three that may see it; the others never look
}

// Truth is what nobody can know: which requests will come, and what a replica can really do.
type Truth struct {
	Model    decide.Model
	Begin    time.Time // of the arrivals; zero is the first Decide
	Arrivals []Arrival // in order of time
	Plan     *Plan     // that offline-optimum follows; nil is the fluid bound, rounded up
}

// Arrival is one request.
type Arrival struct {
	At       time.Duration // since Begin
	Prompt   int           // tokens
	Uncached int           // of Prompt, to be computed
	Output   int           // tokens
}

// ErrTruth is asked for by a scaler that cannot be without Truth.
var ErrTruth = errors.New("it sees the future, and none was given")

// Names returns all names, those that see Truth among them.
func Names() []string {
	return []string{
		"static-peak", "hpa-waiting", "kpa", "llmd-token", "llmd-slo", "wva-v2", "dynamo", "fixed-ratio", "clairvoyant",
		"offline-optimum",
	}
}

// New returns the scaler of a name. Variant is default (empty is the same) for what is published, or tuned: a few knobs
// set once, on two traces.
func New(name, variant string, s Setup) (Scaler, error) {
	tuned := variant == "tuned"
	if !tuned && variant != "" && variant != "default" {
		return nil, fmt.Errorf("choose scaler: variant %q is neither default nor tuned", variant)
	}
	if !slices.Contains(Names(), name) {
		return nil, fmt.Errorf("choose scaler: %q is none of %s", name, strings.Join(Names(), ", "))
	}
	s.Policy = filled(s.Policy)
	if slices.Contains([]string{"static-peak", "clairvoyant", "offline-optimum"}, name) {
		if s.Truth == nil {
			return nil, fmt.Errorf("choose scaler %s: %w", name, ErrTruth)
		}
		return seeing(name, s), nil
	}
	if name == "fixed-ratio" {
		return newRatio(tuned, s.Policy), nil
	}
	return &apart{policy: s.Policy, make: blind(name, tuned, s.Policy), of: make(map[decide.Role]control)}, nil
}

// seeing makes a scaler that sees the truth.
func seeing(name string, s Setup) Scaler {
	switch name {
	case "clairvoyant":
		return newClairvoyant(s)
	case "offline-optimum":
		return newPlanned(s)
	}
	return newStatic(s)
}

// blind says how a scaler that does not see the truth begins with a role.
func blind(name string, tuned bool, p decide.Policy) func(*view) control {
	switch name {
	case "kpa":
		return func(v *view) control { return newKPA(v, tuned) }
	case "llmd-token":
		return func(v *view) control { return newToken(v, tuned, p) }
	case "llmd-slo":
		return func(v *view) control { return newSLO(v, tuned, p) }
	case "wva-v2":
		return func(v *view) control { return newWVA(v, tuned, p) }
	case "dynamo":
		return func(v *view) control { return newDynamo(v, tuned, p) }
	}
	return func(v *view) control { return newWaiting(v, tuned, p) }
}
