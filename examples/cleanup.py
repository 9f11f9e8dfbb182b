"""A machine that is given back whatever happens: `all_done` runs when all before it has ended, and does not hide a failure."""

from app.infra.flow import AsyncFlow, Context, SQLiteStore, TriggerRule

flow = AsyncFlow("cleanup", SQLiteStore("workflows.db"))


@flow.task
def rent(ctx: Context) -> str:
    print("rented machine-7")
    return "machine-7"


@flow.task(depends_on=[rent], max_retries=1)
def train(ctx: Context, rent: str) -> float:
    print(f"training on {rent}")
    raise MemoryError("the model does not fit")


@flow.task(depends_on=[train])
def publish(ctx: Context, train: float) -> None:
    print(f"published with a loss of {train}")


@flow.task(depends_on=[train, publish], trigger_rule=TriggerRule.ONE_FAILED)
def alert(ctx: Context) -> None:
    print("somebody should look at the model")


@flow.task(depends_on=[rent, publish, alert], trigger_rule=TriggerRule.ALL_DONE)
def give_back(ctx: Context, rent: str | None) -> None:
    if rent is not None:  # if it could not be rented, there is nothing to give back
        print(f"gave back {rent}")


def main() -> None:
    run = flow.run()
    print(f"run: {run.state}")
    for task in run.tasks.values():
        print(f"  {task.task_id}: {task.state}")


if __name__ == "__main__":
    main()
