package scalingpolicy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"

	"sigs.k8s.io/yaml"
)

// maxBytes of a file of policies.
const maxBytes = 4 << 20

// A line that parts two documents of YAML.
var separator = regexp.MustCompile(`(?m)^---[ \t]*(#.*)?\r?$`)

// Parse reads the policies of a file: documents of YAML or JSON, each a ScalingPolicy as `kubectl apply` takes it.
// Fields that are not known are errors, and so are two policies of one pool: what is misspelt must not be ignored.
func Parse(data []byte) ([]Policy, error) {
	if len(data) > maxBytes {
		return nil, fmt.Errorf("read policies: %d bytes are more than %d", len(data), maxBytes)
	}
	var policies []Policy
	pools := map[string]string{}
	for i, document := range separator.Split(string(data), -1) {
		asJSON, err := yaml.YAMLToJSONStrict([]byte(document))
		if err != nil {
			return nil, fmt.Errorf("read policy in document %d: %w", i+1, err)
		}
		if string(asJSON) == "null" {
			continue // comments only
		}
		p, err := FromJSON(asJSON)
		if err != nil {
			return nil, fmt.Errorf("read policy %q in document %d: %w", p.Name, i+1, err)
		}
		pool := p.Spec.PoolID()
		if other, taken := pools[pool]; taken {
			return nil, fmt.Errorf("read policy %q: %w: %q is of the same pool %s", p.Name, ErrInvalid, other, pool)
		}
		pools[pool] = p.Name
		policies = append(policies, p)
	}
	return policies, nil
}

// FromJSON reads and checks one ScalingPolicy, as an API server or a file gives it. Its status is ignored. The name
// and namespace are returned even with an error, if they could be read.
func FromJSON(data []byte) (Policy, error) {
	var object struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Metadata   struct {
			Name      string `json:"name"`
			Namespace string `json:"namespace"`
		} `json:"metadata"`
		Spec json.RawMessage `json:"spec"`
	}
	if err := json.Unmarshal(data, &object); err != nil {
		return Policy{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	p := Policy{Name: object.Metadata.Name, Namespace: object.Metadata.Namespace}
	if object.APIVersion != APIVersion || object.Kind != Kind {
		return p, fmt.Errorf("%w: it is %s %s, not %s %s", ErrInvalid, object.APIVersion, object.Kind, APIVersion, Kind)
	}
	if p.Name == "" || object.Spec == nil {
		return p, fmt.Errorf("%w: metadata.name or spec is missing", ErrInvalid)
	}
	decoder := json.NewDecoder(bytes.NewReader(object.Spec))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&p.Spec); err != nil {
		return p, fmt.Errorf("%w: %w", ErrInvalid, explain(err))
	}
	return p, p.Spec.Check()
}

// explain says what is behind the commonest surprise: to YAML 1.1 a bare on or off is a truth value.
func explain(err error) error {
	var wrongType *json.UnmarshalTypeError
	if errors.As(err, &wrongType) && wrongType.Field == "mode" && wrongType.Value == "bool" {
		return errors.New(`spec.mode: YAML reads a bare on or off as true or false: write "on" or "off" in quotes`)
	}
	return err
}
