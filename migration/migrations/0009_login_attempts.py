from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("migration", "0008_operations")]
    operations = [
        migrations.CreateModel(
            name="LoginAttempt",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("address", models.CharField(max_length=64)),
                ("pair", models.CharField(help_text="The name and the address together.", max_length=64)),
                ("at", models.DateTimeField(db_index=True)),
            ],
            options={
                "default_permissions": (),
                "indexes": [models.Index(fields=["address", "-at"], name="login_attempt_of_address")],
            },
        ),
    ]
