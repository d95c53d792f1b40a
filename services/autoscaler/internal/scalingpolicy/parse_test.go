package scalingpolicy

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

const whole = `# what a file may hold
---
apiVersion: warmpath.dev/v1alpha1
kind: ScalingPolicy
metadata:
  name: qwen3
  namespace: llm
  resourceVersion: "7"
spec:
  model: Qwen/Qwen3-32B
  objectives: {ttft: 1.5s, itl: 30ms}
  roles:
    prefill:
      target: {apiVersion: apps/v1, kind: Deployment, name: qwen3-prefill}
      min: 0
      max: 8
      gpus: 2
    decode:
      target: {apiVersion: leaderworkerset.x-k8s.io/v1, kind: LeaderWorkerSet, name: qwen3-decode}
      max: 4
      gpus: 8
  gpuBudget: 40
  headroom: 1.3
  idleAfter: 30m
  startup: 110s
  mode: "on"
  fcfs: true
status: {ignored: yes}
--- # the least
apiVersion: warmpath.dev/v1alpha1
kind: ScalingPolicy
metadata: {name: small}
spec:
  pool: small-12345678
  roles: {both: {}}
`

func TestParseTranslatesEveryField(t *testing.T) {
	got, err := Parse([]byte(whole))
	if err != nil || len(got) != 2 {
		t.Fatalf("%d policies, %v", len(got), err)
	}
	first := got[0]
	if first.Name != "qwen3" || first.Namespace != "llm" || first.Spec.PoolID() != fleet.PoolID("Qwen/Qwen3-32B") {
		t.Errorf("read %+v of pool %s", first, first.Spec.PoolID())
	}
	want := decide.Policy{
		Mode: decide.On, TTFT: 1500 * time.Millisecond, ITL: 30 * time.Millisecond,
		Bounds: map[decide.Role]decide.Bounds{
			decide.Prefill: {Min: 0, Max: 8, GPUs: 2},
			decide.Decode:  {Max: 4, GPUs: 8},
		},
		GPUs: 40, Headroom: 1.3, IdleAfter: 30 * time.Minute, Startup: 110 * time.Second, FCFS: true,
	}
	if policy := first.Spec.Policy(); !reflect.DeepEqual(policy, want) {
		t.Errorf("translated to %+v, want %+v", policy, want)
	}
	if target := first.Spec.Roles[decide.Decode].Target; target.String() != "LeaderWorkerSet/qwen3-decode" {
		t.Errorf("target %v", target)
	}
	least := got[1].Spec
	if p := least.Policy(); least.PoolID() != "small-12345678" || p.Mode != "" || p.Bounds[decide.Both] != (decide.Bounds{}) {
		t.Errorf("the least is %+v", p)
	}
}

// Every field of the decision's policy that an operator may set must be reachable: a field that is added there and
// forgotten here fails.
func TestNoFieldOfThePolicyIsForgotten(t *testing.T) {
	got, err := Parse([]byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	value := reflect.ValueOf(got[0].Spec.Policy())
	for i := range value.NumField() {
		name := value.Type().Field(i).Name
		if name != "Prior" && value.Field(i).IsZero() { // the model is learned, not set
			t.Errorf("%s is never set by a ScalingPolicy", name)
		}
	}
}

func TestSpecSurvivesJSON(t *testing.T) {
	got, err := Parse([]byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(got[0].Spec)
	if err != nil {
		t.Fatal(err)
	}
	var again Spec
	if err := json.Unmarshal(data, &again); err != nil || !reflect.DeepEqual(again, got[0].Spec) {
		t.Fatalf("%v: %s became %+v", err, data, again)
	}
}

// header is of a policy whose spec follows, indented by two.
const header = "apiVersion: warmpath.dev/v1alpha1\nkind: ScalingPolicy\nmetadata: {name: p}\nspec:\n"

func TestPoliciesThatCannotBe(t *testing.T) {
	cases := map[string]struct{ spec, want string }{
		"neither model nor pool": {"  roles: {both: {}}", "one of model and pool"},
		"model and pool":         {"  model: m\n  pool: p\n  roles: {both: {}}", "one of model and pool"},
		"no role":                {"  model: m\n  roles: {}", "at least one"},
		"unknown role":           {"  model: m\n  roles: {encode: {}}", "spec.roles.encode"},
		"min over max":           {"  model: m\n  roles: {both: {min: 3, max: 2}}", "min 3 is more than max 2"},
		"zero without idleAfter": {"  model: m\n  roles: {both: {min: 0}}", "set idleAfter"},
		"negative":               {"  model: m\n  roles: {both: {min: -1}}", "spec.roles.both.min"},
		"bare on":                {"  model: m\n  roles: {both: {}}\n  mode: on", "in quotes"},
		"unknown mode":           {"  model: m\n  roles: {both: {}}\n  mode: auto", "off, shadow, up-only, on"},
		"misspelt":               {"  model: m\n  roles: {both: {}}\n  gpuBuget: 3", "gpuBuget"},
		"misspelt below":         {"  model: m\n  roles: {both: {maximum: 3}}", "maximum"},
		"twice":                  {"  model: m\n  model: n\n  roles: {both: {}}", "already set"},
		"duration without unit":  {"  model: m\n  roles: {both: {}}\n  startup: \"110\"", "missing unit"},
		"duration as number":     {"  model: m\n  roles: {both: {}}\n  startup: 110", "startup"},
		"negative duration":      {"  model: m\n  roles: {both: {}}\n  idleAfter: -1s", "spec.idleAfter"},
		"headroom":               {"  model: m\n  roles: {both: {}}\n  headroom: 0.1", "spec.headroom"},
		"budget below minima":    {"  model: m\n  roles: {both: {min: 3, gpus: 4}}\n  gpuBudget: 11", "less than the 12"},
		"one target twice": {
			"  model: m\n  roles: {prefill: {target: {kind: Deployment, name: x}}, decode: {target: {kind: Deployment, name: x}}}",
			"the same Deployment/x",
		},
	}
	for name, c := range cases {
		_, err := Parse([]byte(header + c.spec + "\n"))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	_, err := Parse([]byte(header + "  model: m\n  roles: {both: {min: 3, max: 2}}\n  gpuBudget: -1\n"))
	if !errors.Is(err, ErrInvalid) || strings.Count(err.Error(), "spec.") != 2 {
		t.Errorf("not all that is wrong: %v", err)
	}
}

func TestFilesThatCannotBe(t *testing.T) {
	one := header + "  model: m\n  roles: {both: {}}\n"
	for name, c := range map[string]struct{ file, want string }{
		"other kind":         {strings.Replace(one, "ScalingPolicy", "Policy", 1), "not warmpath.dev/v1alpha1 ScalingPolicy"},
		"other version":      {strings.Replace(one, "v1alpha1", "v2", 1), "not warmpath.dev/v1alpha1 ScalingPolicy"},
		"no name":            {strings.Replace(one, "name: p", "", 1), "metadata.name"},
		"no mapping":         {"- 1\n", "invalid"},
		"no YAML":            {"a: b: c\n", "document 1"},
		"two of one pool":    {one + "---\n" + strings.Replace(one, "name: p", "name: q", 1), `"p" is of the same pool`},
		"endless":            {strings.Repeat("#", maxBytes+1), "more than"},
		"aliases that swell": {"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f,*f]\n", "document 1"},
	} {
		if _, err := Parse([]byte(c.file)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if got, err := Parse([]byte("# nothing\n---\n---\n")); err != nil || got != nil {
		t.Errorf("an empty file is %v, %v", got, err)
	}
}

// What Parse takes is checked and stays so when it is written and read again; nothing makes it panic.
func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte(header + "  model: m\n  roles: {both: {min: 3, max: 2}}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		policies, err := Parse(data)
		if err != nil {
			return
		}
		for _, p := range policies {
			if err := p.Spec.Check(); err != nil || p.Name == "" {
				t.Fatalf("%q took %+v: %v", data, p, err)
			}
			written, err := json.Marshal(p.Spec)
			if err != nil {
				t.Fatal(err)
			}
			var again Spec
			if err := json.Unmarshal(written, &again); err != nil || again.Check() != nil {
				t.Fatalf("%s cannot be read again: %v, %v", written, err, again.Check())
			}
		}
	})
}
