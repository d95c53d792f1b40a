package main

import (
	"strings"
	"testing"
)

func TestEnginesHaveTheRolesThatAreAskedFor(t *testing.T) {
	for want, o := range map[string]engineOptions{
		"both both":             {count: 2},
		"prefill decode decode": {count: 8, prefill: 1, decode: 2},
	} {
		o.model, o.profile, o.blockSize, o.scale = "m", "instant", 16, 1
		engines, err := o.start(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var roles []string
		for _, r := range engines.records("m") {
			roles = append(roles, r.Role)
		}
		engines.close()
		if got := strings.Join(roles, " "); got != want || len(o.names()) != len(roles) {
			t.Errorf("%s, %d names, want %s", got, len(o.names()), want)
		}
	}
	for _, o := range []engineOptions{{}, {count: 8, prefill: 1}, {count: 8, decode: 2}, {prefill: -1, decode: -1}} {
		if err := o.apart(); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}
