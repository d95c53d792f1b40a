// Command autoscaler turns what the routers report into how many prefill and decode engines are needed.
package main

import (
	"context"
	"flag"
	"os"

	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/services/autoscaler"
)

func main() {
	var cfg autoscaler.Config
	daemon.Main("autoscaler", "decides how many engines each pool and role needs, and has them started and stopped",
		func(fs *flag.FlagSet) {
			fs.StringVar(&cfg.NATS, "nats", "nats://127.0.0.1:4222", "URL of the NATS server")
			fs.BoolVar(&cfg.Kubernetes, "kubernetes", os.Getenv("KUBERNETES_SERVICE_HOST") != "", "scale what the cluster's ScalingPolicies name; default where this runs in a cluster")
			fs.StringVar(&cfg.Kubeconfig, "kubeconfig", "", "`file` that names the cluster; default is the one that this runs in")
			fs.StringVar(&cfg.Namespace, "namespace", "warmpath", "of the lease by which one autoscaler leads")
			fs.StringVar(&cfg.Policies, "scaling-policy", "", "`file` of ScalingPolicies, where Kubernetes has none: decisions are shown, and nobody acts on them but who reads the metrics")
			fs.StringVar(&cfg.StateDir, "data-dir", "", "`folder` in which what was learned of these pools is kept; default is nowhere")
			fs.StringVar(&cfg.Instance, "instance", "", "name of this replica; default is the host's name with a random suffix")
		},
		func(ctx context.Context, p *daemon.Process) error {
			cfg.Log, cfg.Metrics, cfg.Health, cfg.Pages = p.Log, p.Registry, p.Health, &p.Pages
			return autoscaler.Run(ctx, cfg)
		})
}
