"""An approval that goes one of three ways: a branch decides which, the others are skipped, and two of them meet again."""

from app.infra.flow import AsyncFlow, Context, SQLiteStore, TriggerRule

flow = AsyncFlow("approval", SQLiteStore("workflows.db"))


@flow.task(branch=True)
def decide(ctx: Context) -> str:
    if ctx.params["amount"] <= 100:
        return "wave_through"
    return "ask_the_manager" if ctx.params["amount"] <= 1000 else "refuse"


@flow.task(depends_on=[decide])
def wave_through(ctx: Context) -> str:
    return "nobody"


@flow.task(depends_on=[decide])
def ask_the_manager(ctx: Context) -> str:
    return "the manager"  # a real one would be written to, and waited for


@flow.task(depends_on=[decide])
def refuse(ctx: Context) -> None:
    print(f"{ctx.params['amount']} are too much: not paid")


# One of the two is skipped, and under all_success so would this be; if the expense was refused, both are.
@flow.task(depends_on=[wave_through, ask_the_manager], trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS)
def pay(ctx: Context, wave_through: str | None, ask_the_manager: str | None) -> None:
    print(f"{ctx.params['amount']} paid; {wave_through or ask_the_manager} had to agree")


def main() -> None:
    for amount in (40, 900, 7000):
        run = flow.run({"amount": amount})
        for task in run.tasks.values():
            print(f"  {task.task_id}: {task.state}")


if __name__ == "__main__":
    main()
