// Package follow decides what a link does so that topics, configs, ACLs and quotas here follow those of another cluster, by rules. It is pure: each function compares what the source has
// with what is here and returns a Plan, the steps that are to be done and sentences about what a person should know. Doing the steps and planning again gives no steps; a plan that is
// shown and not done is a dry run.
//
//	CheckClusters   may there be a link between these clusters
//	Topics          which topics are mirrored, under which names: new ones, and new partitions
//	Configs         which configs of a mirror are set: those that the link owns
//	ACLs            which ACLs and roles are added and removed
//	Quotas          which quotas are set and removed
//
// Common to all: what the link has not made it does not remove, and what a person has changed here is shown. The caller keeps what was made, and gives it back with the next plan. It must not ask
// for a plan with what it could not learn: an answer that failed is not an empty one.
package follow
